package gc

import (
	"regexp"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// Kind is what is stored under a key.
type Kind string

// The kinds.
const (
	Plan       Kind = "plan"
	Drvs       Kind = "drvs"       // a pack of derivations
	Evaluation Kind = "evaluation" // of a source
	Inputs     Kind = "inputs"     // a pack of a flake's inputs
	Result     Kind = "result"     // of an entry, for the report of the same run
	Record     Kind = "record"     // what a run leaves for others
	Index      Kind = "index"      // of packs
	Pack       Kind = "pack"       // of store paths
)

// Kinds are all of them.
var Kinds = []Kind{Plan, Drvs, Result, Evaluation, Inputs, Record, Index, Pack}

// forms are the keys of each kind, behind the id and a dash.
var forms = map[Kind]*regexp.Regexp{
	Plan:       regexp.MustCompile(`^plan\d+-([0-9a-f]{16}-)?[0-9a-f]{32}$`),
	Drvs:       regexp.MustCompile(`^drvs\d+-[0-9a-f]{32}$`),
	Evaluation: regexp.MustCompile(`^evaluation-[0-9a-f]{32}-[0-9a-f]{16}$`),
	Inputs:     regexp.MustCompile(`^inputs-([0-9a-f]{16})?-[0-9a-f]{32}-[0-9a-f]{32}$`),
	Result:     regexp.MustCompile(`^result-\d+-[0-9a-f]{10}-\d+-\d+$`),
	Record:     regexp.MustCompile(`^record-[a-z0-9._+=-]+$`),
	Index:      regexp.MustCompile(`^index-[a-z0-9._+=-]+$`),
	Pack:       regexp.MustCompile(`^pack-[a-z0-9._+=-]+$`),
}

// KindOf says what a use of nix-matrix with this id has stored under a key, if it has.
// Ids may have dashes, so that a key can read as one of a short id and as one of a
// longer: it is the longer's.
func KindOf(id, key string) (Kind, bool) {
	rest, ok := strings.CutPrefix(key, id+"-")
	if !ok {
		return "", false
	}
	kind, ok := formOf(rest)
	if !ok {
		return "", false
	}
	for i := len(id) + 1; i < len(key); i++ {
		if key[i] != '-' || job.CheckID(key[:i]) != nil {
			continue
		}
		if _, other := formOf(key[i+1:]); other {
			return "", false
		}
	}
	return kind, true
}

func formOf(rest string) (Kind, bool) {
	for kind, form := range forms {
		if form.MatchString(rest) {
			return kind, true
		}
	}
	return "", false
}
