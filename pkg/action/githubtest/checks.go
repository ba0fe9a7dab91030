package githubtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// A CheckRun is one of a commit.
type CheckRun struct {
	ID                       int64
	App                      string // its slug, by default that of the token
	HeadSHA, Name            string
	ExternalID, DetailsURL   string
	Status, Conclusion       string
	Title, Summary, Text     string
	StartedAt, CompletedAt   time.Time
	AnnotationsOf, Revisions int // numbers of annotations and of changes
}

// ownApp is the app of a job's token.
const ownApp = "github-actions"

var (
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
	conclusions   = []string{"action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"}
)

// checkBody is the body of a request that writes a check run. A field that is not there is nil.
type checkBody struct {
	Name        *string `json:"name"`
	HeadSHA     *string `json:"head_sha"`
	DetailsURL  *string `json:"details_url"`
	ExternalID  *string `json:"external_id"`
	Status      *string `json:"status"`
	Conclusion  *string `json:"conclusion"`
	StartedAt   *string `json:"started_at"`
	CompletedAt *string `json:"completed_at"`
	Output      *struct {
		Title       *string            `json:"title"`
		Summary     *string            `json:"summary"`
		Text        *string            `json:"text"`
		Annotations []*checkAnnotation `json:"annotations"`
		Images      []any              `json:"images"`
	} `json:"output"`
	Actions []any `json:"actions"`
}

type checkAnnotation struct {
	Path            *string `json:"path"`
	StartLine       *int    `json:"start_line"`
	EndLine         *int    `json:"end_line"`
	StartColumn     *int    `json:"start_column"`
	EndColumn       *int    `json:"end_column"`
	AnnotationLevel *string `json:"annotation_level"`
	Message         *string `json:"message"`
	Title           *string `json:"title"`
	RawDetails      *string `json:"raw_details"`
}

// CheckRuns are those that there are.
func (s *Server) CheckRuns() []CheckRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.options.CheckRuns)
}

func (s *Server) createCheck(r *http.Request, _ int64) answer {
	b, said := readCheck(r)
	if said.status != 0 {
		return said
	}
	if b.Name == nil || b.HeadSHA == nil {
		return invalidRequest("Missing required keys: name and head_sha")
	}
	if !commitPattern.MatchString(*b.HeadSHA) || len(s.options.Heads) > 0 && !slices.Contains(s.options.Heads, *b.HeadSHA) {
		return refuse(http.StatusUnprocessableEntity, "No commit found for SHA: %s", *b.HeadSHA)
	}
	c := CheckRun{ID: s.next(), App: ownApp, HeadSHA: *b.HeadSHA, Status: "queued", StartedAt: time.Now()}
	c.write(b)
	s.options.CheckRuns = append(s.options.CheckRuns, c)
	s.changed()
	return answer{status: http.StatusCreated, body: c.fields()}
}

func (s *Server) updateCheck(r *http.Request, id int64) answer {
	b, said := readCheck(r)
	if said.status != 0 {
		return said
	}
	if b.HeadSHA != nil {
		return invalidRequest("\"head_sha\" is not a permitted key")
	}
	i := slices.IndexFunc(s.options.CheckRuns, func(c CheckRun) bool { return c.ID == id })
	if i < 0 {
		return notFound
	}
	c := &s.options.CheckRuns[i]
	if cmp.Or(c.App, ownApp) != ownApp {
		return refuse(http.StatusForbidden, "Invalid app_id `1` - check run can only be modified by the GitHub App that created it.")
	}
	c.Revisions++
	c.write(b)
	s.changed()
	return answer{status: http.StatusOK, body: c.fields()}
}

func (s *Server) listChecks(r *http.Request, _ int64) answer {
	query := r.URL.Query()
	filter := cmp.Or(query.Get("filter"), "latest")
	if filter != "latest" && filter != "all" {
		return refuse(http.StatusUnprocessableEntity, "no such filter: %s", filter)
	}
	commit := path.Base(path.Dir(r.URL.Path))
	items := []any{}
	for i, c := range s.options.CheckRuns {
		hidden := filter == "latest" && slices.ContainsFunc(s.options.CheckRuns[i+1:], func(later CheckRun) bool {
			return later.Name == c.Name && later.HeadSHA == commit
		})
		switch {
		case c.HeadSHA != commit, hidden:
		case query.Has("check_name") && query.Get("check_name") != c.Name, query.Has("status") && query.Get("status") != c.Status:
		default:
			items = append(items, c.fields())
		}
	}
	return s.page(r, items, "check_runs")
}

// write takes what a valid body says.
func (c *CheckRun) write(b *checkBody) {
	for to, from := range map[*string]*string{
		&c.Name: b.Name, &c.ExternalID: b.ExternalID, &c.DetailsURL: b.DetailsURL, &c.Status: b.Status, &c.Conclusion: b.Conclusion,
	} {
		if from != nil {
			*to = *from
		}
	}
	if b.Conclusion != nil {
		c.Status, c.CompletedAt = "completed", time.Now()
	}
	for to, from := range map[*time.Time]*string{&c.StartedAt: b.StartedAt, &c.CompletedAt: b.CompletedAt} {
		if from != nil {
			*to, _ = time.Parse(time.RFC3339, *from)
		}
	}
	if b.Output != nil {
		c.Title, c.Summary, c.Text = *b.Output.Title, *b.Output.Summary, ""
		if b.Output.Text != nil {
			c.Text = *b.Output.Text
		}
		c.AnnotationsOf += len(b.Output.Annotations)
	}
}

func (c *CheckRun) fields() map[string]any {
	fields := map[string]any{
		"id": c.ID, "name": c.Name, "head_sha": c.HeadSHA, "external_id": c.ExternalID, "details_url": c.DetailsURL, "status": c.Status,
		"conclusion": nil, "started_at": c.StartedAt.UTC().Format(time.RFC3339), "completed_at": nil,
		"app":    map[string]any{"slug": cmp.Or(c.App, ownApp)},
		"output": map[string]any{"title": c.Title, "summary": c.Summary, "text": c.Text, "annotations_count": c.AnnotationsOf},
	}
	if c.Conclusion != "" {
		fields["conclusion"], fields["completed_at"] = c.Conclusion, c.CompletedAt.UTC().Format(time.RFC3339)
	}
	return fields
}

// readCheck reads a body and checks all that both kinds of requests have in common.
func readCheck(r *http.Request) (*checkBody, answer) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "Content-Type: %q is not application/json", media)
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, 8<<20))
	decoder.DisallowUnknownFields()
	var b checkBody
	if err := decoder.Decode(&b); err != nil {
		return nil, refuse(http.StatusBadRequest, "Problems parsing JSON: %v", err)
	}
	if said := b.check(); said.status != 0 {
		return nil, said
	}
	return &b, answer{}
}

func (b *checkBody) check() answer {
	const longest = 255
	if b.Name != nil && (*b.Name == "" || len(*b.Name) > longest) {
		return invalidField("name", "name has %d characters", len(*b.Name))
	}
	if b.ExternalID != nil && len(*b.ExternalID) > longest {
		return invalidField("external_id", "external_id has %d characters", len(*b.ExternalID))
	}
	if b.Status != nil && !slices.Contains([]string{"queued", "in_progress", "completed"}, *b.Status) {
		return invalidRequest("%q is not a status", *b.Status)
	}
	if b.Conclusion != nil && !slices.Contains(conclusions, *b.Conclusion) {
		return invalidRequest("%q is not a conclusion", *b.Conclusion)
	}
	if b.Status != nil && *b.Status == "completed" && b.Conclusion == nil || b.Conclusion != nil && b.Status != nil && *b.Status != "completed" {
		return invalidRequest("a conclusion goes with the status completed")
	}
	for name, at := range map[string]*string{"started_at": b.StartedAt, "completed_at": b.CompletedAt} {
		if at == nil {
			continue
		}
		if _, err := time.Parse(time.RFC3339, *at); err != nil {
			return invalidRequest("%s: %q is not a date-time", name, *at)
		}
	}
	if b.DetailsURL != nil {
		if u, err := url.Parse(*b.DetailsURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return invalidField("details_url", "details_url must use http or https scheme")
		}
	}
	if b.Output == nil {
		return answer{}
	}
	if b.Output.Title == nil || b.Output.Summary == nil || *b.Output.Title == "" || *b.Output.Summary == "" {
		return invalidRequest("output: missing required keys: title and summary")
	}
	for name, text := range map[string]*string{"title": b.Output.Title, "summary": b.Output.Summary, "text": b.Output.Text} {
		if text != nil && len(*text) > 65535 { // bytes, though the documentation says characters
			return invalidField(name, "%s exceeds a maximum bytesize of 65535", name)
		}
	}
	const most = 50
	if n := len(b.Output.Annotations); n > most {
		return invalidRequest("No more than %d items are allowed; %d were supplied.", most, n)
	}
	for _, a := range b.Output.Annotations {
		if said := a.check(); said.status != 0 {
			return said
		}
	}
	return answer{}
}

func (a *checkAnnotation) check() answer {
	const longest, longestTitle = 64 << 10, 255
	if a.Path == nil || a.StartLine == nil || a.EndLine == nil || a.AnnotationLevel == nil || a.Message == nil {
		return invalidRequest("annotations: missing required keys: path, start_line, end_line, annotation_level and message")
	}
	if *a.StartLine < 1 || *a.EndLine < *a.StartLine || path.IsAbs(*a.Path) || *a.Path == "" {
		return invalidRequest("annotations: there is no place %s:%d-%d", *a.Path, *a.StartLine, *a.EndLine)
	}
	if (a.StartColumn != nil || a.EndColumn != nil) && *a.StartLine != *a.EndLine {
		return invalidRequest("annotations: columns are for a single line")
	}
	if !slices.Contains([]string{"notice", "warning", "failure"}, *a.AnnotationLevel) {
		return invalidRequest("%q is not an annotation_level", *a.AnnotationLevel)
	}
	if len(*a.Message) > longest || a.RawDetails != nil && len(*a.RawDetails) > longest || a.Title != nil && len(*a.Title) > longestTitle {
		return invalidField("annotations", "an annotation is too long")
	}
	return answer{}
}

// invalidRequest refuses a body that does not have the form.
func invalidRequest(message string, arguments ...any) answer {
	return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\n"+message, arguments...)
}

// invalidField refuses the value of a field.
func invalidField(field, message string, arguments ...any) answer {
	said := refuse(http.StatusUnprocessableEntity, "Validation Failed")
	said.body.(map[string]any)["errors"] = []map[string]string{{
		"resource": "CheckRun", "field": field, "code": "custom", "message": fmt.Sprintf(message, arguments...),
	}}
	return said
}

// limited answers a request that makes something in place of the right answer if there were too many.
func (s *Server) limited(r *http.Request) answer {
	if s.options.Writes == 0 || r.Method == http.MethodGet {
		return answer{}
	}
	if s.written++; s.written <= s.options.Writes {
		return answer{}
	}
	said := Failure{Status: http.StatusForbidden, Secondary: true}.answer()
	said.header.Set("Retry-After", strconv.Itoa(s.options.RetryAfter))
	if s.options.RetryAfter == 0 {
		s.written = 0 // the time has passed
	}
	return said
}
