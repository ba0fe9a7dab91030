package job

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/org/nix-matrix/internal/valid"
)

// An Update is a new lock file, for the job that opens the pull request with it. That job runs none of the code that
// the update brings.
type Update struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"` // UTC
	// Run and Attempt are GitHub's numbers of the run that made the Update, 0 outside of one.
	Run     int64 `json:"run,omitempty"`
	Attempt int   `json:"attempt,omitempty"`

	Commit   string `json:"commit"`   // that the update is of
	LockFile string `json:"lockFile"` // below the root of the repository, with slashes
	Lock     string `json:"lock"`     // its content
	Title    string `json:"title"`    // of the pull request and of the commit
	Message  string `json:"message"`  // of the commit, behind the title
	Body     string `json:"body"`     // of the pull request: Markdown
}

// Limits of an Update.
const (
	// MaxLock is the most bytes of a lock file: Nix writes about 500 for each input.
	MaxLock = 4 << 20
	// MaxBody is the most characters of the body of a pull request, some less than GitHub's 65536.
	MaxBody = 60_000

	maxTitle = 200 // bytes
)

// ParseUpdate reads an Update and checks it.
func ParseUpdate(data []byte) (*Update, error) {
	var u Update
	if err := parse("update", data, &u, &u.Version); err != nil {
		return nil, err
	}
	err := cmp.Or(
		CheckID(u.ID),
		field("commit", u.checkCommit()),
		field("lockFile", checkLockFile(u.LockFile)),
		field("lock", u.checkLock()),
		field("title", line(u.Title, maxTitle)),
		field("message", checkText(u.Message)),
		field("body", u.checkBody()),
	)
	if err != nil {
		return nil, fmt.Errorf("update: %w", err)
	}
	return &u, nil
}

// Marshal returns the Update's JSON.
func (u *Update) Marshal() ([]byte, error) {
	data, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("cannot write the update: %w", err)
	}
	return data, nil
}

func (u *Update) checkCommit() error {
	if !commitPattern().MatchString(u.Commit) {
		return fmt.Errorf("%s is not a commit", valid.Quote(u.Commit))
	}
	return nil
}

// checkLockFile accepts the name of a lock file: no other file is changed by an Update.
func checkLockFile(name string) error {
	inGit := strings.HasPrefix(strings.ToLower(name), ".git/") || strings.Contains(strings.ToLower(name), "/.git/")
	if path.Base(name) != "flake.lock" || !fs.ValidPath(name) || inGit || valid.Line(name, MaxName) != nil {
		return fmt.Errorf("%s is not the name of a lock file in a repository", valid.Quote(name))
	}
	return nil
}

// checkLock returns an error unless the content is a lock file whose inputs come from where flake.nix says: a lock file
// can name any other repository, which nobody sees in flake.nix.
func (u *Update) checkLock() error {
	type source struct{ Type, Owner, Repo, Host, URL, Path string }
	var lock struct {
		Nodes map[string]struct{ Original, Locked *source }
		Root  string
	}
	switch err := json.Unmarshal([]byte(u.Lock), &lock); {
	case len(u.Lock) > MaxLock:
		return fmt.Errorf("it has %d bytes, which are too many", len(u.Lock))
	case err != nil:
		return err
	case len(lock.Nodes) == 0 || lock.Root == "" || !utf8.ValidString(u.Lock):
		return errors.New("it is no lock file of a flake")
	}
	for name, node := range lock.Nodes {
		if node.Original == nil || node.Locked == nil || !slices.Contains([]string{"github", "gitlab", "sourcehut", "git", "hg", "path"}, node.Original.Type) {
			continue // an address that stands for others, or of an archive
		}
		if from, to := *node.Original, *node.Locked; !strings.EqualFold(fmt.Sprint(from), fmt.Sprint(to)) {
			return fmt.Errorf("%s is locked to another source than the one that its flake names", valid.Quote(name))
		}
	}
	return nil
}

func (u *Update) checkBody() error {
	if n := utf8.RuneCountInString(u.Body); n > MaxBody || !utf8.ValidString(u.Body) {
		return fmt.Errorf("it has %d characters, more than %d, or characters that are none", n, MaxBody)
	}
	return nil
}
