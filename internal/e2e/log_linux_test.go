package e2e_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

// A line is one of act's log.
type line struct {
	Time    string         `json:"time"`
	Job     string         `json:"job"`   // ci/report; nix/nix-matrix/discover in a workflow that is called
	JobID   string         `json:"jobID"` // report
	Matrix  map[string]any `json:"matrix"`
	StepID  []string       `json:"stepID"` // several in a composite action
	Result  string         `json:"stepResult"`
	Command string         `json:"command"`
	Arg     string         `json:"arg"`     // of another command
	Output  string         `json:"name"`    // of the command set-output
	Content string         `json:"content"` // of a summary
	Raw     bool           `json:"raw_output"`
	Message string         `json:"msg"`
}

// name is "report", or "nixosConfigurations.pi3" of the matrix. That of a called workflow has the caller in
// front: "nix/report".
func (l *line) name() string {
	parts := strings.SplitN(strings.TrimSpace(l.Job), "/", 3)
	name := l.JobID
	if entry, ok := l.Matrix["name"].(string); ok {
		name = entry
	}
	if len(parts) == 3 && parts[1] == "nix-matrix" {
		name = parts[0] + "/" + name
	}
	return name
}

// wait waits for the end, and checks that nobody has told the secret.
func (r *run) wait() {
	r.t.Helper()
	<-r.ended
	for _, l := range r.lines {
		if strings.Contains(l.Message, secret) || l.Raw && slices.ContainsFunc(r.secrets, func(s string) bool { return s != "" && strings.Contains(l.Message, s) }) {
			r.t.Errorf("a secret is in the log of %s: %s", l.name(), l.Message)
		}
	}
	for _, name := range r.uploaded() {
		if bytes.Contains(r.artifact(name), []byte(secret)) {
			r.t.Errorf("a secret is in the artifact %s", name)
		}
	}
}

// end reads the log when act has ended.
func (r *run) end(log []byte) {
	for text := range strings.Lines(string(log)) {
		var l line
		if json.Unmarshal([]byte(text), &l) != nil {
			l.Message = text // not from a job: act's own failure
		}
		r.lines = append(r.lines, l)
	}
	close(r.ended)
}

// print shows how the run ended and its log, as a person reads it.
func (r *run) print() {
	r.t.Logf("act: %v; its log is:", r.cmd.ProcessState)
	for _, l := range r.lines {
		r.t.Logf("%s [%s] %s", l.Time, l.name(), strings.TrimRight(l.Message, "\n"))
	}
}

// expect compares the results of all jobs that ran.
func (r *run) expect(want map[string]string) {
	r.t.Helper()
	got := map[string]string{}
	for _, l := range r.lines {
		switch {
		case l.JobID == "" || len(l.StepID) > 1 || l.Raw:
		case l.Result == "failure":
			got[l.name()] = "failure"
		case l.Result == "success" && got[l.name()] == "":
			got[l.name()] = "success"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("jobs, - want + got:\n%s", diff)
	}
	green := true
	for _, result := range want {
		green = green && result == "success"
	}
	if r.cmd.ProcessState.Success() != green {
		r.t.Errorf("act: %v", r.cmd.ProcessState)
	}
}

var stepEnd = regexp.MustCompile(`(?:Success|Failure) - Main (.*) \[[^]]*\]$`)

// step returns the result of a step of the action in a job: success, failure, or empty if it did not run.
func (r *run) step(job, step string) string {
	for _, l := range r.lines {
		if m := stepEnd.FindStringSubmatch(l.Message); m != nil && m[1] == step && l.name() == job && l.Result != "" {
			return l.Result
		}
	}
	return ""
}

// summary is what the job shows on the page of the run.
func (r *run) summary(job string) string {
	for _, l := range r.lines {
		if l.name() == job && l.Command == "summary" {
			return l.Content
		}
	}
	return ""
}

// output is what a job's step of the action gives.
func (r *run) output(job, name string) string {
	r.t.Helper()
	for _, l := range r.lines {
		if l.name() == job && l.Command == "set-output" && l.Output == name {
			return l.Arg
		}
	}
	r.t.Errorf("%s has no output %s", job, name)
	return ""
}

// counts checks how many store paths restore and save have told of, each in a step of its own.
func (r *run) counts(job, restored, saved string) {
	r.t.Helper()
	got := map[string]string{}
	for _, l := range r.lines {
		if l.name() == job && l.Command == "set-output" && l.Arg != "" {
			got[l.Output] = l.Arg
		}
	}
	if got["restored"] != restored || got["saved"] != saved {
		r.t.Errorf("%s restored %q and saved %q, want %s and %s", job, got["restored"], got["saved"], restored, saved)
	}
}

// says checks that for each of the patterns the job has a line in its log.
func (r *run) says(job string, patterns ...string) {
	r.t.Helper()
	for _, pattern := range patterns {
		if !r.said(job, pattern) {
			r.t.Errorf("the log of %s has no line %q", job, pattern)
		}
	}
}

// saysNot checks that the job has no such line in its log.
func (r *run) saysNot(job, pattern string) {
	r.t.Helper()
	if r.said(job, pattern) {
		r.t.Errorf("the log of %s has a line %q", job, pattern)
	}
}

func (r *run) said(job, pattern string) bool {
	line := regexp.MustCompile(pattern)
	for _, l := range r.lines {
		if l.name() == job && line.MatchString(l.Message) {
			return true
		}
	}
	return false
}

// annotation is the job's first error on the page of the run.
func (r *run) annotation(job string) string {
	for _, l := range r.lines {
		if l.name() == job && l.Command == "error" {
			return l.Arg
		}
	}
	return ""
}

// verdict checks the first line of the summary.
func (r *run) verdict(job, want string) {
	r.t.Helper()
	got, _, _ := strings.Cut(r.summary(job), "\n")
	if got != "## "+want {
		r.t.Errorf("the summary of %s begins with %q, want %q", job, got, "## "+want)
	}
}

// uploaded returns the names of the artifacts of the run.
func (r *run) uploaded() []string {
	entries, err := os.ReadDir(filepath.Join(r.artifacts, "1"))
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// artifact returns the contents of all files of an artifact, one after the other.
func (r *run) artifact(name string) []byte {
	r.t.Helper()
	files, err := zip.OpenReader(filepath.Join(r.artifacts, "1", name, name+".zip"))
	if err != nil {
		r.t.Fatalf("artifact %s: %v", name, err)
	}
	defer files.Close()
	if len(files.File) == 0 {
		r.t.Fatalf("artifact %s has no files", name)
	}
	var data []byte
	for _, file := range files.File {
		content, err := file.Open()
		if err != nil {
			r.t.Fatalf("artifact %s: %v", name, err)
		}
		part, err := io.ReadAll(content)
		if err != nil {
			r.t.Fatalf("artifact %s: %v", name, err)
		}
		data = append(data, part...)
	}
	return data
}

// results returns the outcomes in the Results, by entry.
func (r *run) results() map[string]job.Outcome {
	r.t.Helper()
	outcomes := map[string]job.Outcome{}
	for _, name := range r.uploaded() {
		if !strings.Contains(name, ".result.") {
			continue
		}
		result, err := job.ParseResult(r.artifact(name))
		if err != nil {
			r.t.Fatalf("artifact %s: %v", name, err)
		}
		outcomes[result.Name] = result.Outcome
	}
	return outcomes
}

// waitFor waits until somebody makes the file.
func (r *run) waitFor(file string) {
	r.t.Helper()
	for ticker := time.NewTicker(10 * time.Millisecond); ; {
		if _, err := os.Stat(file); err == nil {
			ticker.Stop()
			return
		}
		select {
		case <-ticker.C:
		case <-r.ended:
			r.t.Fatalf("the run ended and nobody made %s", filepath.Base(file))
		}
	}
}

// launched finds the process that the launcher has become: the one that runs nix-matrix with that command,
// for that entry. It must be the step's shell, the one process that the runner signals.
func (r *run) launched(command, entry string) *os.Process {
	r.t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, proc := range processes {
		args := procStrings(proc, "cmdline")
		if len(args) < 2 || !strings.HasPrefix(args[0], r.dir) || filepath.Base(args[0]) != binary || args[1] != command {
			continue
		}
		job := ""
		for _, variable := range procStrings(proc, "environ") {
			if value, ok := strings.CutPrefix(variable, "INPUT_JOB="); ok {
				job = value
			}
		}
		if !strings.Contains(job, entry) {
			continue
		}
		var parent int
		for line := range strings.Lines(strings.Join(procStrings(proc, "status"), "")) {
			fmt.Sscanf(line, "PPid: %d", &parent)
		}
		if shell := procStrings(fmt.Sprintf("/proc/%d", parent), "cmdline"); len(shell) == 0 || filepath.Base(shell[0]) != "act" {
			r.t.Fatalf("the parent of nix-matrix %s is %q, not act: the launcher does not exec", command, shell)
		}
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			r.t.Fatal(err)
		}
		process, err := os.FindProcess(pid)
		if err != nil {
			r.t.Fatal(err)
		}
		return process
	}
	r.t.Fatalf("no process runs nix-matrix %s for %s", command, entry)
	return nil
}

// procStrings reads a file below /proc, whose parts end in a zero byte. It has none if the process is gone.
func procStrings(proc, file string) []string {
	data, err := os.ReadFile(filepath.Join(proc, file))
	if err != nil {
		return nil
	}
	return strings.Split(string(data), "\x00")
}
