package job

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// The keys of the Actions cache, or of a directory. Each begins with the id and the kind:
//
//	ID-planTRY-[SEAL-]HASH           a Plan, by its bytes
//	ID-drvsTRY-HASH                  a pack of derivations, by their paths
//	ID-result-RUN-ENTRY-ATTEMPT-TRY  the Result of an entry
//	ID-claim-RUN-ATTEMPT-UNIT-TRY-BEAT
//	                                 the claim to a unit, and its renewals
//	ID-done-RUN-UNIT-ATTEMPT-TRY     what became of a unit
//	ID-evaluation-FINGERPRINT-HASH   an evaluation, by its source and its result
//	ID-inputs-SEAL-HASH-HASH         a pack of flake inputs, by the wanted ones and those in it
//	ID-record-WORKFLOW-SEAL-RUN      a record of the default branch
//	ID-index-…                       an index of store packs, see [storecache]
//	ID-pack-HASH-TRY                 a pack of store paths, by their records
//
// SEAL is the fingerprint of the key that a document is sealed with, empty for one in clear.
// TRY counts the attempts to store it, because a reserved key cannot be used again.
//
// [storecache]: https://pkg.go.dev/github.com/org/nix-matrix/pkg/storecache

// KeyKind is the kind of document or pack that is stored under a key.
type KeyKind string

// The kinds of keys.
const (
	KeyPlan       KeyKind = "plan"
	KeyDrvs       KeyKind = "drvs"
	KeyEvaluation KeyKind = "evaluation"
	KeyInputs     KeyKind = "inputs"
	KeyResult     KeyKind = "result"
	KeyClaim      KeyKind = "claim"
	KeyDone       KeyKind = "done"
	KeyRecord     KeyKind = "record"
	KeyIndex      KeyKind = "index"
	KeyPack       KeyKind = "pack"
)

// KeyKinds are all kinds, in the order in which tables show them.
var KeyKinds = []KeyKind{KeyPlan, KeyDrvs, KeyResult, KeyClaim, KeyDone, KeyEvaluation, KeyInputs, KeyRecord, KeyIndex, KeyPack}

// keyForms match the keys of each kind, behind the id and a dash.
var keyForms = map[KeyKind]lazyregexp.Regexp{
	KeyPlan:       lazyregexp.New(`^plan\d{1,9}-(?:[0-9a-f]{16}-)?([0-9a-f]{32})$`),
	KeyDrvs:       lazyregexp.New(`^drvs\d+-[0-9a-f]{32}$`),
	KeyEvaluation: lazyregexp.New(`^evaluation-[0-9a-f]{32}-[0-9a-f]{16}$`),
	KeyInputs:     lazyregexp.New(`^inputs-([0-9a-f]{16})?-[0-9a-f]{32}-[0-9a-f]{32}$`),
	KeyResult:     lazyregexp.New(`^result-\d+-[0-9a-f]{10}-\d+-\d+$`),
	KeyClaim:      lazyregexp.New(`^claim-\d+-\d+-[0-9a-f]{16}-\d+-\d{5,}$`),
	KeyDone:       lazyregexp.New(`^done-\d+-[0-9a-f]{16}-\d+-\d+$`),
	KeyRecord:     lazyregexp.New(`^record-[a-z0-9._+=-]+$`),
	KeyIndex:      lazyregexp.New(`^index-[a-z0-9._+=-]+$`),
	KeyPack:       lazyregexp.New(`^pack-[a-z0-9._+=-]+$`),
}

// ParseKey returns the kind of a key of a use of nix-matrix with this id. ok is false for keys
// of others. Ids may have dashes, so that a key can be read as one of a short id and as one of
// a longer id: it belongs to the longer one.
func ParseKey(id, key string) (kind KeyKind, ok bool) {
	rest, ok := strings.CutPrefix(key, id+"-")
	if !ok {
		return "", false
	}
	kind, ok = keyForm(rest)
	if !ok {
		return "", false
	}
	for i := len(id) + 1; i < len(key); i++ {
		if key[i] != '-' || CheckID(key[:i]) != nil {
			continue
		}
		if _, other := keyForm(key[i+1:]); other {
			return "", false
		}
	}
	return kind, true
}

func keyForm(rest string) (KeyKind, bool) {
	for kind, form := range keyForms {
		if form().MatchString(rest) {
			return kind, true
		}
	}
	return "", false
}

// PlanKey returns the cache keys of a Plan whose JSON is data, one for each try. A key contains
// a hash of the bytes, so that CheckPlanKey refuses any other Plan. seal is the fingerprint of
// the sealing key, empty without one.
func PlanKey(id, seal string, data []byte) func(try int) string {
	if seal != "" {
		seal += "-"
	}
	return func(try int) string { return fmt.Sprintf("%s-plan%d-%s%s", id, try, seal, planSum(data)) }
}

// planKey splits a key that PlanKey returns. ok is false for other texts.
func planKey(text string) (id, sum string, ok bool) {
	for i := strings.LastIndex(text, "-plan"); i >= 0; i = strings.LastIndex(text[:i], "-plan") {
		if m := keyForms[KeyPlan]().FindStringSubmatch(text[i+1:]); m != nil && CheckID(text[:i]) == nil {
			return text[:i], m[1], true
		}
	}
	return "", "", false
}

// PlanKeyID returns the id in the key of a Plan. ok is false if text is no such key.
func PlanKeyID(text string) (id string, ok bool) {
	id, _, ok = planKey(text)
	return id, ok
}

// CheckPlanKey returns an error unless data is the Plan of the key.
func CheckPlanKey(key string, data []byte) error {
	if sum := planSum(data); !strings.HasSuffix(key, "-"+sum) {
		return fmt.Errorf("the plan has the hash %s, not the one of %s: it is not the plan of this job", sum, key)
	}
	return nil
}

// SamePlan reports whether both texts are keys of one Plan.
func SamePlan(a, b string) bool {
	_, first, ok := planKey(a)
	_, second, too := planKey(b)
	return ok && too && first == second
}

func planSum(data []byte) string { return hexSum(data, planSumBytes) }

const planSumBytes = 16

func hexSum(data []byte, bytes int) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:bytes])
}

// DrvsKey returns the keys of a pack of derivations, one for each try. sum is the hash of the
// paths in it.
func DrvsKey(id, sum string) func(try int) string {
	return func(try int) string { return fmt.Sprintf("%s-drvs%d-%s", id, try, sum) }
}

// ResultPrefix begins the keys of the Results of an entry in a run, of all attempts.
func ResultPrefix(id string, run int64, entry string) string {
	return fmt.Sprintf("%s-result-%d-%s-", id, run, entry)
}

// ResultKey returns the keys of the Result of an entry in an attempt, one for each try.
func ResultKey(id string, run int64, entry string, attempt int) func(try int) string {
	return func(try int) string { return fmt.Sprintf("%s%d-%d", ResultPrefix(id, run, entry), attempt, try) }
}

// RecordPrefix begins the keys of the records of a workflow.
func RecordPrefix(id, seal, workflow string) string {
	return fmt.Sprintf("%s-record-%s-%s-", id, hexSum([]byte(workflow), 4), seal)
}

// RecordKey returns the key of the record of an attempt of a run.
func RecordKey(id, seal, workflow string, run int64, attempt int) string {
	return fmt.Sprintf("%s%d-%d", RecordPrefix(id, seal, workflow), run, attempt)
}

// EvaluationPrefix begins the keys of the evaluations of one source with the same settings. The
// fingerprint is a hash of both.
func EvaluationPrefix(id, fingerprint string) string { return id + "-evaluation-" + fingerprint + "-" }

// EvaluationKey returns the key of an evaluation whose JSON is data.
func EvaluationKey(id, fingerprint string, data []byte) string {
	return EvaluationPrefix(id, fingerprint) + hexSum(data, 8)
}

// InputsPrefix begins the keys of all packs of flake inputs that are sealed with a key, or,
// without a fingerprint, in clear.
func InputsPrefix(id, seal string) string { return id + "-inputs-" + seal + "-" }

// IndexPrefix begins the keys of the indexes of store packs.
func IndexPrefix(id string) string { return id + "-index-" }

// PackKey returns the keys of a pack of store paths, one for each try. sum is the hash of its
// records.
func PackKey(id, sum string) func(try int) string {
	return func(try int) string { return fmt.Sprintf("%s-pack-%s-%d", id, sum, try) }
}
