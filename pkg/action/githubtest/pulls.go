package githubtest

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Commit is one of a repository.
type Commit struct {
	Parent, Message string
	Files           map[string]string // all of them, by name
}

// A Pull is a pull request. Only one of a branch and its base can be open.
type Pull struct {
	Number            int
	Head, Base        string // branches
	Title, Body       string
	Closed, AutoMerge bool
	Method            string // by which it merges itself
}

// Branches returns the commits of the branches, by name.
func (s *Server) Branches() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.options.Branches)
}

// Commit returns a commit.
func (s *Server) Commit(sha string) Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options.Commits[sha]
}

// AddCommit makes a commit the last one of a branch.
func (s *Server) AddCommit(branch, sha string, c Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Commits[sha], s.options.Branches[branch] = c, sha
}

// Pulls are the pull requests that there are.
func (s *Server) Pulls() []Pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.options.Pulls)
}

var (
	shaPattern    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	branchPattern = regexp.MustCompile(`^refs/heads/[A-Za-z0-9][A-Za-z0-9._/-]*$`)
)

// object names content, as git does.
func object(kind, content string) string {
	return fmt.Sprintf("%x", sha1.Sum([]byte(kind+"\x00"+content)))
}

func treeOf(files map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, name+"\x00"+files[name])
	}
	return object("tree", strings.Join(all, "\x00"))
}

// decode reads a body that may have these fields and no others.
func decode(r *http.Request, to any) answer {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "Content-Type: %q is not application/json", media)
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, 8<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return refuse(http.StatusBadRequest, "Problems parsing JSON: %v", err)
	}
	return answer{}
}

func invalid(resource, format string, args ...any) answer {
	said := refuse(http.StatusUnprocessableEntity, "Validation Failed")
	said.body.(map[string]any)["errors"] = []map[string]string{{"resource": resource, "code": "custom", "message": fmt.Sprintf(format, args...)}}
	return said
}

// last returns the rest of a request's path behind a part of it.
func last(r *http.Request, part string) string {
	_, rest, _ := strings.Cut(r.URL.Path, part)
	return rest
}

// git answers what is known of commits and branches.
func (s *Server) gitEndpoints() []endpoint {
	contents, pulls := []string{"contents"}, []string{"pull-requests"}
	paging := []string{"per_page", "page"}
	return []endpoint{
		{"GET", `/git/ref/heads/.+`, nil, "read", contents, s.getRef},
		{"GET", `/git/commits/[0-9a-f]{40}`, nil, "read", contents, s.getCommit},
		{"POST", `/git/trees`, nil, "write", contents, s.createTree},
		{"POST", `/git/commits`, nil, "write", contents, s.createCommit},
		{"POST", `/git/refs`, nil, "write", contents, s.createRef},
		{"PATCH", `/git/refs/heads/.+`, nil, "write", contents, s.updateRef},
		{"GET", `/pulls`, append([]string{"state", "head", "base", "sort", "direction"}, paging...), "read", pulls, s.listPulls},
		{"POST", `/pulls`, nil, "write", pulls, s.createPull},
		{"PATCH", `/pulls/(\d+)`, nil, "write", pulls, s.updatePull},
	}
}

func (s *Server) getRef(r *http.Request, _ int64) answer {
	name := last(r, "/git/ref/heads/")
	sha, ok := s.options.Branches[name]
	if !ok {
		return notFound
	}
	return answer{status: http.StatusOK, body: refFields(name, sha)}
}

func refFields(name, sha string) map[string]any {
	return map[string]any{"ref": "refs/heads/" + name, "object": map[string]any{"type": "commit", "sha": sha}}
}

func (s *Server) getCommit(r *http.Request, _ int64) answer {
	sha := last(r, "/git/commits/")
	c, ok := s.options.Commits[sha]
	if !ok {
		return notFound
	}
	return answer{status: http.StatusOK, body: c.fields(sha)}
}

func (c Commit) fields(sha string) map[string]any {
	parents := []any{}
	if c.Parent != "" {
		parents = append(parents, map[string]any{"sha": c.Parent})
	}
	return map[string]any{"sha": sha, "message": c.Message, "tree": map[string]any{"sha": treeOf(c.Files)}, "parents": parents}
}

func (s *Server) createTree(r *http.Request, _ int64) answer {
	var tree struct {
		BaseTree string `json:"base_tree"`
		Tree     []struct{ Path, Mode, Type, Content string }
	}
	if said := decode(r, &tree); said.status != 0 {
		return said
	}
	files, ok := s.trees[tree.BaseTree]
	for _, c := range s.options.Commits {
		if treeOf(c.Files) == tree.BaseTree {
			files, ok = c.Files, true
		}
	}
	if !ok {
		return invalid("Tree", "base_tree %q is not a tree", tree.BaseTree)
	}
	files = maps.Clone(files)
	if files == nil {
		files = map[string]string{}
	}
	for _, entry := range tree.Tree {
		if entry.Mode != "100644" || entry.Type != "blob" || entry.Path == "" || strings.HasPrefix(entry.Path, "/") {
			return invalid("Tree", "tree.path %q", entry.Path)
		}
		files[entry.Path] = entry.Content
	}
	if s.trees == nil {
		s.trees = map[string]map[string]string{}
	}
	sha := treeOf(files)
	s.trees[sha] = files
	return answer{status: http.StatusCreated, body: map[string]any{"sha": sha}}
}

func (s *Server) createCommit(r *http.Request, _ int64) answer {
	var commit struct {
		Message, Tree string
		Parents       []string
	}
	if said := decode(r, &commit); said.status != 0 {
		return said
	}
	files, ok := s.trees[commit.Tree]
	if !ok || commit.Message == "" || len(commit.Parents) != 1 || s.options.Commits[commit.Parents[0]].Files == nil {
		return invalid("Commit", "tree %q, parents %q", commit.Tree, commit.Parents)
	}
	sha := object("commit", fmt.Sprint(s.next(), commit))
	s.options.Commits[sha] = Commit{Parent: commit.Parents[0], Message: commit.Message, Files: files}
	return answer{status: http.StatusCreated, body: s.options.Commits[sha].fields(sha)}
}

func (s *Server) createRef(r *http.Request, _ int64) answer {
	var ref struct{ Ref, SHA string }
	if said := decode(r, &ref); said.status != 0 {
		return said
	}
	name := strings.TrimPrefix(ref.Ref, "refs/heads/")
	if _, there := s.options.Branches[name]; there || !branchPattern.MatchString(ref.Ref) {
		return invalid("Reference", "Reference already exists, or is invalid: %q", ref.Ref)
	}
	return s.setRef(name, ref.SHA, http.StatusCreated)
}

func (s *Server) updateRef(r *http.Request, _ int64) answer {
	var ref struct {
		SHA   string
		Force bool
	}
	if said := decode(r, &ref); said.status != 0 {
		return said
	}
	name := last(r, "/git/refs/heads/")
	old, there := s.options.Branches[name]
	if !there {
		return invalid("Reference", "Reference does not exist")
	}
	if s.options.Commits[ref.SHA].Parent != old && !ref.Force {
		return invalid("Reference", "Update is not a fast forward")
	}
	return s.setRef(name, ref.SHA, http.StatusOK)
}

func (s *Server) setRef(name, sha string, status int) answer {
	if _, there := s.options.Commits[sha]; !there || !shaPattern.MatchString(sha) {
		return invalid("Reference", "Object does not exist")
	}
	if s.options.Branches == nil {
		s.options.Branches = map[string]string{}
	}
	s.options.Branches[name] = sha
	for i := range s.options.Pulls { // GitHub closes a pull request that has nothing more
		p := &s.options.Pulls[i]
		p.Closed = p.Closed || p.Head == name && s.options.Branches[p.Base] == sha
	}
	s.changed()
	return answer{status: status, body: refFields(name, sha)}
}

func (s *Server) listPulls(r *http.Request, _ int64) answer {
	query := r.URL.Query()
	owner, _, _ := strings.Cut(s.options.Repository, "/")
	if query.Has("head") && !strings.HasPrefix(query.Get("head"), owner+":") {
		return refuse(http.StatusBadRequest, "head: %q names no owner, so it would be ignored", query.Get("head"))
	}
	items := []any{}
	for _, p := range s.options.Pulls {
		head := !query.Has("head") || query.Get("head") == owner+":"+p.Head
		base := !query.Has("base") || query.Get("base") == p.Base
		if head && base && (query.Get("state") != "open" || !p.Closed) {
			items = append(items, s.pullFields(p))
		}
	}
	return s.page(r, items, "")
}

func (s *Server) pullFields(p Pull) map[string]any {
	state := map[bool]string{false: "open", true: "closed"}[p.Closed]
	fields := map[string]any{
		"number": p.Number, "node_id": fmt.Sprintf("PR_%d", p.Number), "state": state, "title": p.Title, "body": p.Body,
		"html_url": fmt.Sprintf("https://github.com/%s/pull/%d", s.options.Repository, p.Number),
		"head":     map[string]any{"ref": p.Head}, "base": map[string]any{"ref": p.Base}, "auto_merge": nil,
	}
	if p.AutoMerge {
		fields["auto_merge"] = map[string]any{"merge_method": p.Method}
	}
	return fields
}

func (s *Server) createPull(r *http.Request, _ int64) answer {
	var pull struct {
		Title, Body, Head, Base string
		Modify                  bool `json:"maintainer_can_modify"`
	}
	if said := decode(r, &pull); said.status != 0 {
		return said
	}
	if s.options.NoPulls {
		return refuse(http.StatusForbidden, "GitHub Actions is not permitted to create or approve pull requests.")
	}
	from, to := s.options.Branches[pull.Head], s.options.Branches[pull.Base]
	switch there := slices.ContainsFunc(s.options.Pulls, func(p Pull) bool { return !p.Closed && p.Head == pull.Head && p.Base == pull.Base }); {
	case there:
		return invalid("PullRequest", "A pull request already exists for %s.", pull.Head)
	case from == "" || to == "" || from == to:
		return invalid("PullRequest", "No commits between %s and %s", pull.Base, pull.Head)
	case pull.Title == "" || utf8.RuneCountInString(pull.Body) > 65536:
		return invalid("PullRequest", "title or body")
	}
	p := Pull{Number: PullRequest + 1 + len(s.options.Pulls), Head: pull.Head, Base: pull.Base, Title: pull.Title, Body: pull.Body}
	s.options.Pulls = append(s.options.Pulls, p)
	s.changed()
	return answer{status: http.StatusCreated, body: s.pullFields(p)}
}

func (s *Server) updatePull(r *http.Request, number int64) answer {
	var pull struct{ Title, Body string }
	if said := decode(r, &pull); said.status != 0 {
		return said
	}
	i := slices.IndexFunc(s.options.Pulls, func(p Pull) bool { return int64(p.Number) == number })
	if i < 0 {
		return notFound
	}
	s.options.Pulls[i].Title, s.options.Pulls[i].Body = pull.Title, pull.Body
	s.changed()
	return answer{status: http.StatusOK, body: s.pullFields(s.options.Pulls[i])}
}

// graphQL answers the one mutation that has no place in the REST API. GraphQL says 200 of errors, too.
func (s *Server) graphQL(r *http.Request) answer {
	var asked struct {
		Query     string
		Variables struct{ Pull, Method string }
	}
	if said := decode(r, &asked); said.status != 0 {
		return said
	}
	failed := func(message string) answer {
		return answer{status: http.StatusOK, body: map[string]any{
			"data": map[string]any{"enablePullRequestAutoMerge": nil}, "errors": []map[string]any{{"type": "UNPROCESSABLE", "message": message}},
		}}
	}
	const mutation = "mutation($pull: ID!, $method: PullRequestMergeMethod!) { enablePullRequestAutoMerge(input: {pullRequestId: $pull, mergeMethod: $method}) { clientMutationId } }"
	if strings.Join(strings.Fields(asked.Query), " ") != mutation || !slices.Contains([]string{"MERGE", "SQUASH", "REBASE"}, asked.Variables.Method) {
		return failed("this is not known here")
	}
	for _, permission := range []string{"contents", "pull-requests"} {
		if s.options.Permissions[permission] != "write" {
			return failed("Resource not accessible by integration")
		}
	}
	for i := range s.options.Pulls {
		p := &s.options.Pulls[i]
		if asked.Variables.Pull != fmt.Sprintf("PR_%d", p.Number) {
			continue
		}
		if s.options.NoAutoMerge {
			return failed("Pull request Auto merge is not allowed for this repository")
		}
		p.AutoMerge, p.Method = true, strings.ToLower(asked.Variables.Method)
		s.changed()
		return answer{status: http.StatusOK, body: map[string]any{"data": map[string]any{"enablePullRequestAutoMerge": map[string]any{"clientMutationId": nil}}}}
	}
	return failed("Could not resolve to a node")
}
