package action

// A Scope is the part of a cache without scopes of its own, such as a bucket, that holds what is
// saved for a ref. The zero value is the default scope, that of default branches.
type Scope struct {
	Class string // the kind of ref
	Name  string // the repository and the ref
}

// The classes of scopes.
const (
	ProposalScopes = "proposals" // of changes that are not merged
	BranchScopes   = "branches"  // of all other refs but default branches
	LocalScopes    = "local"     // of machines outside of GitHub Actions
)

// Scopes returns the scopes of a bucket whose blobs the job reads: the first one it also writes, the
// others are those of the refs that it trusts (see [Trust.Refs]). So nothing that a proposal writes
// is read by a job for another ref, and nothing that a branch writes by one for the default branch.
// Repositories that share a bucket and a prefix share the default scope and no other.
func (t Trust) Scopes(repository string) []Scope {
	if !t.Running {
		return []Scope{{Class: LocalScopes}, {}}
	}
	var scopes []Scope
	for i, ref := range t.Refs() {
		name := repository + " " + ref
		switch {
		case i == 0 && t.Proposed():
			scopes = append(scopes, Scope{ProposalScopes, name})
		case t.DefaultBranch != "" && ref == branchRef+t.DefaultBranch:
			scopes = append(scopes, Scope{})
		default:
			scopes = append(scopes, Scope{BranchScopes, name})
		}
	}
	if t.DefaultBranch != "" && t.Proposed() && t.Ref == branchRef+t.DefaultBranch {
		scopes = append(scopes, Scope{}) // such as a comment's, which runs on the default branch
	}
	return scopes
}
