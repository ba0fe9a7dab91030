package verdict

import "time"

// An Origin says what a verdict is about, for later readers. Unknown fields are empty. All of it
// is foreign text.
type Origin struct {
	Repository string    `json:"repository,omitempty"` // OWNER/NAME
	Commit     string    `json:"commit,omitempty"`     // full hash
	Source     string    `json:"source,omitempty"`     // the request, if there is no repository
	Created    time.Time `json:"created,omitzero"`     // of the Plan, UTC
	Machine    string    `json:"machine,omitempty"`    // that evaluated: its system
	Nix        string    `json:"nix,omitempty"`        // implementation and version that evaluated
}
