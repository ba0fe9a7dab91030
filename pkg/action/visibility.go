package action

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// repository is what GitHub tells of one, in events and by its API.
type repository struct {
	Private *bool
}

// Public says whether anybody can read the repository of this job: as the event says
// that it runs for, else as GitHub's API does, which the token is for. Where neither
// says so it is taken for public, but for no job of GitHub Actions.
func (a *Action) Public(ctx context.Context, token string) bool {
	if !a.Running() {
		return false
	}
	private := a.readEvent().Repository.Private
	if private == nil {
		if asked, err := a.askRepository(ctx, token); err == nil {
			private = asked.Private
		}
	}
	return private == nil || !*private
}

// askRepository asks GitHub's API: GET /repos/OWNER/REPO.
func (a *Action) askRepository(ctx context.Context, token string) (*repository, error) {
	api, name := strings.TrimSuffix(a.getenv("GITHUB_API_URL"), "/"), a.getenv("GITHUB_REPOSITORY")
	if api == "" || name == "" {
		return nil, fmt.Errorf("there is no API to ask")
	}
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/repos/"+name, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/vnd.github+json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s says %s", api, response.Status)
	}
	var r repository
	const enough = 1 << 20
	return &r, json.NewDecoder(io.LimitReader(response.Body, enough)).Decode(&r)
}
