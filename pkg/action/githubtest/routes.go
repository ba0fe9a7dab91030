package githubtest

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route answers a request whose headers are right. Paths and fields are those of
// https://docs.github.com/rest, version 2022-11-28.
func (s *Server) route(r *http.Request) answer {
	if r.URL.Path == strings.TrimSuffix(s.options.Base, "/v3")+"/graphql" && r.Method == http.MethodPost {
		return s.graphQL(r)
	}
	path, ok := strings.CutPrefix(r.URL.Path, s.options.Base+"/")
	if !ok {
		return notFound
	}
	if path == "user" && r.Method == http.MethodGet {
		if s.options.Login == "" {
			return refuse(http.StatusForbidden, "Resource not accessible by integration")
		}
		return answer{status: http.StatusOK, body: user(s.options.Login)}
	}
	path, ok = strings.CutPrefix(path, "repos/"+s.options.Repository)
	if !ok {
		return notFound
	}
	for _, e := range s.endpoints() {
		match := regexp.MustCompile("^" + e.path + "$").FindStringSubmatch(path)
		if match == nil || r.Method != e.method {
			continue
		}
		for name := range r.URL.Query() {
			if !slices.Contains(e.query, name) {
				return refuse(http.StatusBadRequest, "no such parameter: %s", name)
			}
		}
		if said := s.may(e.access, e.permissions...); said.status != 0 {
			return said
		}
		number := int64(0)
		if len(match) > 1 {
			number, _ = strconv.ParseInt(match[1], 10, 64)
		}
		return e.answer(r, number)
	}
	return notFound
}

// An endpoint is one of the API's, below the repository.
type endpoint struct {
	method, path string // a pattern, of which one group is a number
	query        []string
	access       string // read or write
	permissions  []string
	answer       func(r *http.Request, number int64) answer
}

func (s *Server) endpoints() []endpoint {
	paging := []string{"per_page", "page"}
	discussion := []string{"issues", "pull-requests"} // either will do
	return append(s.gitEndpoints(), []endpoint{
		{"GET", ``, nil, "read", []string{"metadata"}, s.repository},
		{"GET", `/actions/caches`, append([]string{"key", "ref", "sort", "direction"}, paging...), "read", []string{"actions"}, s.listCaches},
		{"DELETE", `/actions/caches/(\d+)`, nil, "write", []string{"actions"}, s.deleteCache},
		{"GET", fmt.Sprintf(`/issues/%d/comments`, PullRequest), append([]string{"since"}, paging...), "read", discussion, s.listComments},
		{"POST", fmt.Sprintf(`/issues/%d/comments`, PullRequest), nil, "write", discussion, s.createComment},
		{"PATCH", `/issues/comments/(\d+)`, nil, "write", discussion, s.updateComment},
		{"GET", `/commits/[0-9a-f]{40}/check-runs`, append([]string{"check_name", "status", "filter", "app_id"}, paging...), "read", []string{"checks"}, s.listChecks},
		{"POST", `/check-runs`, nil, "write", []string{"checks"}, s.createCheck},
		{"PATCH", `/check-runs/(\d+)`, nil, "write", []string{"checks"}, s.updateCheck},
	}...)
}

func (s *Server) repository(*http.Request, int64) answer {
	return answer{status: http.StatusOK, body: map[string]any{
		"full_name": s.options.Repository, "default_branch": "main",
		"visibility": s.options.Visibility, "private": s.options.Visibility != "public",
	}}
}

func (s *Server) listCaches(r *http.Request, _ int64) answer {
	query := r.URL.Query()
	found := slices.DeleteFunc(slices.Clone(s.options.Caches), func(c Cache) bool {
		return !strings.HasPrefix(c.Key, query.Get("key")) || query.Has("ref") && query.Get("ref") != c.Ref
	})
	order := map[string]func(a, b Cache) int{
		"created_at":       func(a, b Cache) int { return a.Created.Compare(b.Created) },
		"last_accessed_at": func(a, b Cache) int { return a.Used.Compare(b.Used) },
		"size_in_bytes":    func(a, b Cache) int { return cmp.Compare(a.Size, b.Size) },
	}[cmp.Or(query.Get("sort"), "last_accessed_at")]
	direction := cmp.Or(query.Get("direction"), "desc")
	if order == nil || direction != "asc" && direction != "desc" {
		return refuse(http.StatusBadRequest, "no such order: %s %s", query.Get("sort"), direction)
	}
	slices.SortStableFunc(found, order)
	if direction == "desc" {
		slices.Reverse(found)
	}
	items := make([]any, len(found))
	for i, c := range found {
		items[i] = map[string]any{
			"id": c.ID, "key": c.Key, "ref": c.Ref, "version": strings.Repeat("0", 64), "size_in_bytes": c.Size,
			"created_at": c.Created.UTC().Format(time.RFC3339Nano), "last_accessed_at": c.Used.UTC().Format(time.RFC3339Nano),
		}
	}
	return s.page(r, items, "actions_caches")
}

func (s *Server) deleteCache(_ *http.Request, id int64) answer {
	i := slices.IndexFunc(s.options.Caches, func(c Cache) bool { return c.ID == id })
	if i < 0 {
		return notFound
	}
	s.options.Caches = slices.Delete(s.options.Caches, i, i+1)
	s.changed()
	return answer{status: http.StatusNoContent}
}

func (s *Server) listComments(r *http.Request, _ int64) answer {
	items := make([]any, len(s.options.Comments))
	for i, c := range s.options.Comments {
		items[i] = c.fields()
	}
	return s.page(r, items, "")
}

func (s *Server) createComment(r *http.Request, _ int64) answer {
	text, said := body(r)
	if said.status != 0 {
		return said
	}
	c := Comment{ID: s.next(), Author: cmp.Or(s.options.Login, "github-actions[bot]"), Body: text}
	s.options.Comments = append(s.options.Comments, c)
	s.changed()
	return answer{status: http.StatusCreated, body: c.fields()}
}

// updateComment changes the comment of any author, as GitHub does.
func (s *Server) updateComment(r *http.Request, id int64) answer {
	text, said := body(r)
	if said.status != 0 {
		return said
	}
	i := slices.IndexFunc(s.options.Comments, func(c Comment) bool { return c.ID == id })
	if i < 0 {
		return notFound
	}
	s.options.Comments[i].Body = text
	s.changed()
	return answer{status: http.StatusOK, body: s.options.Comments[i].fields()}
}

func (c Comment) fields() map[string]any {
	return map[string]any{"id": c.ID, "body": c.Body, "user": user(c.Author)}
}

func user(login string) map[string]any {
	kind := "User"
	if strings.HasSuffix(login, "[bot]") {
		kind = "Bot"
	}
	return map[string]any{"login": login, "type": kind}
}

// page answers with the page that is asked for: a list, or an object with the list
// under a name.
func (s *Server) page(r *http.Request, items []any, name string) answer {
	query := r.URL.Query()
	number := func(parameter string, otherwise int) int {
		n, err := strconv.Atoi(query.Get(parameter))
		if err != nil || n < 1 {
			return otherwise
		}
		return n
	}
	const usual, most = 30, 100
	per, page := min(number("per_page", usual), most), number("page", 1)
	last := max(1, (len(items)+per-1)/per)
	link := func(rel string, to int) string {
		there := r.URL.Query()
		there.Set("page", strconv.Itoa(to))
		return fmt.Sprintf(`<http://%s%s?%s>; rel="%s"`, r.Host, r.URL.Path, there.Encode(), rel)
	}
	var links []string
	if page > 1 {
		links = append(links, link("prev", page-1), link("first", 1))
	}
	if page < last {
		links = append(links, link("next", page+1), link("last", last))
	}
	said := answer{status: http.StatusOK, header: http.Header{}}
	if len(links) > 0 {
		said.header.Set("Link", strings.Join(links, ", "))
	}
	part := items[min((page-1)*per, len(items)):min(page*per, len(items))]
	said.body = part
	if name != "" {
		said.body = map[string]any{"total_count": len(items), name: part}
	}
	return said
}
