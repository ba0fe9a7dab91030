package nix

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/text"
)

var record = flag.Bool("record", false, "record anew what Nix says")

// instantiate evaluates the attributes of an expression and returns their derivations.
func instantiate(t *testing.T, n *Nix, expr string) map[string]string {
	t.Helper()
	drvs := map[string]string{}
	var said []string
	err := n.Eval(t.Context(), Evaluation{
		Expr:  expr,
		Apply: `set: builtins.foldl' (done: name: builtins.trace "${name} ${set.${name}.drvPath}" done) null (builtins.attrNames set)`,
	}, func(line string) bool {
		said = append(said, line)
		name, drv, ok := strings.Cut(strings.TrimPrefix(line, "trace: "), " ")
		if ok {
			drvs[name] = drv
		}
		return ok
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(said, "\n"))
	}
	return drvs
}

// recorded adds the derivations of testdata/recorded.nix to the store and returns them and their
// outputs by name.
func recorded(t *testing.T, n *Nix) (drvs, outs map[string]string) {
	t.Helper()
	file, err := filepath.Abs("testdata/recorded.nix")
	if err != nil {
		t.Fatal(err)
	}
	drvs, outs = instantiate(t, n, "import "+file), map[string]string{}
	for name, path := range drvs {
		drv, err := n.Derivation(path)
		if err != nil {
			t.Fatal(err)
		}
		outs[name] = drv.Outputs["out"].Path
	}
	return drvs, outs
}

// offer leaves the outputs of fetched and second at the substituter only.
func offer(t *testing.T, n *Nix, drvs, outs map[string]string) {
	t.Helper()
	realise(t, n, drvs["second"])
	if _, err := n.Copy(t.Context(), substituter, []string{outs["second"]}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.output(t.Context(), "nix-store", raw("--delete", outs["fetched"], outs["second"])); err != nil {
		t.Fatal(err)
	}
}

// In the private /nix, so that recordings don't name a temporary directory.
const substituter = "file:///nix/substituter"

var substitute = []Option{Set("substituters", substituter), Set("require-sigs", "false")}

func realise(t *testing.T, n *Nix, drv string) {
	t.Helper()
	if err := n.Realise(t.Context(), []string{drv}, func(Event) {}); err != nil {
		t.Fatal(err)
	}
}

// wanted returns the derivations of the recorded log.
func wanted(drvs map[string]string) []string {
	return []string{drvs["talks"] + "!out", drvs["needsBoth"] + "!out", drvs["without"] + "!out"}
}

// checkRecorded checks the events of realising wanted. The order of builds is up to Nix.
func checkRecorded(t *testing.T, events []Event) {
	t.Helper()
	got := map[string][]string{}
	var errors string
	var fetched, arrived Traffic
	for _, e := range events {
		_, name, _ := strings.Cut(e.Path, "-")
		var what string
		switch e.Kind {
		case BuildStarted:
			what = "build"
		case BuildLine:
			what = "> " + e.Text
		case BuildStopped:
			what = "built"
		case FetchStarted:
			what = "fetch"
		case FetchStopped:
			what = "fetched"
		case FetchCounted:
			fetched.Add(e.Traffic)
			continue
		case FetchProgress:
			arrived.Add(e.Traffic)
			continue
		case ErrorMessage:
			errors += e.Text + "\n"
			continue
		case WarnMessage:
			what = "warning: " + e.Text
		}
		got[name] = append(got[name], what)
	}
	want := map[string][]string{
		"fetched": {"fetch", "fetched"},
		"talks.drv": {
			"build",
			"> plain",
			"> ",
			"> red and bold",
			"> ::error::no command",
			">  ##[error]nor this",
			"> to stderr",
			"> no äscii, not even UTF-8: \ufffd",
			"> no newline at the end",
			"built",
		},
		"fails.drv":   {"build", "> boom", "built"},
		"without.drv": {"build", "> no output", "built"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"fails.drv", "failed with exit code 3", "without.drv' failed to produce output", "needs-both.drv"} {
		if !strings.Contains(errors, want) {
			t.Errorf("the errors don't say %q:\n%s", want, errors)
		}
	}
	if want := (Traffic{1, 120}); fetched != want {
		t.Errorf("counted %+v as fetched, want %+v", fetched, want)
	}
	if arrived != (Traffic{0, 120}) && arrived != (Traffic{}) { // older versions don't report so little
		t.Errorf("%+v has arrived", arrived)
	}
	if errors != text.Plain(errors) {
		t.Errorf("there is colour in %q", errors)
	}
}

// newReader returns a logReader and the events that it emits.
func newReader() (*logReader, *[]Event) {
	events := &[]Event{}
	return &logReader{
		now:    func() time.Time { return time.Unix(int64(len(*events)), 0) },
		active: map[uint64]Event{},
		counts: map[uint64]*count{},
		emit:   func(e Event) { *events = append(*events, e) },
	}, events
}

func read(t *testing.T, pieces ...string) []Event {
	t.Helper()
	r, events := newReader()
	for _, piece := range pieces {
		if n, err := r.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	return *events
}

func TestRecordedLog(t *testing.T) {
	for _, version := range testbench.NixVersions {
		t.Run(version, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "log-"+version))
			if err != nil {
				t.Fatal(err)
			}
			want := read(t, string(data))
			checkRecorded(t, want)
			for _, size := range []int{1, 2, 7, 100, 4096} {
				var pieces []string
				for piece := range slices.Chunk(data, size) {
					pieces = append(pieces, string(piece))
				}
				if diff := cmp.Diff(want, read(t, pieces...)); diff != "" {
					t.Errorf("in pieces of %d:\n%s", size, diff)
				}
			}
		})
	}
}

// start returns a line of the log that starts an activity of a type.
func start(id, kind int, path string) string {
	return fmt.Sprintf(`@nix {"action":"start","id":%d,"type":%d,"fields":[%q]}`+"\n", id, kind, path)
}

// The derivations of the logs here.
const (
	drvA = "/nix/store/00000000000000000000000000000000-a.drv"
	drvB = "/nix/store/00000000000000000000000000000000-b.drv"
)

func logged(id int, text string) string {
	return fmt.Sprintf(`@nix {"action":"result","fields":[%q],"id":%d,"type":101}`+"\n", text, id)
}

func TestLogReader(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	for _, test := range []struct {
		what, log string
		want      []Event
	}{
		{"nothing", "", nil},
		{"blank lines", "\n \n\x1b[0m\n", nil},
		{"a line that has not ended", "bash: warning", nil},
		{
			"noise",
			"bash: \x1b[1mwarning\x1b[0m\r\n::error::x\n@nix no JSON\n@nix {\"action\":\n@nix [1]\n",
			[]Event{
				{Kind: WarnMessage, Time: at(0), Text: "bash: warning"},
				{Kind: WarnMessage, Time: at(1), Text: "::error::x"},
				{Kind: WarnMessage, Time: at(2), Text: "@nix no JSON"},
				{Kind: WarnMessage, Time: at(3), Text: `@nix {"action":`},
				{Kind: WarnMessage, Time: at(4), Text: "@nix [1]"},
			},
		},
		{
			"two builds at once",
			start(1, 105, drvA) + start(2, 105, drvB) + logged(2, "b\r") + logged(1, "a") +
				`@nix {"action":"stop","id":1}` + "\n" + logged(1, "late") + logged(2, "::b"),
			[]Event{
				{Kind: BuildStarted, Time: at(0), Path: drvA, Text: ""},
				{Kind: BuildStarted, Time: at(1), Path: drvB, Text: ""},
				{Kind: BuildLine, Time: at(2), Path: drvB, Text: "b"},
				{Kind: BuildLine, Time: at(3), Path: drvA, Text: "a"},
				{Kind: BuildStopped, Time: at(4), Path: drvA, Text: ""},
				{Kind: BuildLine, Time: at(5), Path: drvB, Text: "::b"},
			},
		},
		{
			"what is not of a build",
			start(1, 100, "/a") + logged(1, "a") + logged(7, "b") + `@nix {"action":"stop","id":1}` + "\n" +
				`@nix {"action":"stop","id":7}` + "\n" + `@nix {"action":"new one","id":7}` + "\n" + "@nix {}\n@nix null\n" +
				`@nix {"action":"result","fields":[1,2],"id":1,"type":105}` + "\n",
			nil,
		},
		{
			"fields that are not as they should be",
			`@nix {"action":"start","id":1,"type":105}` + "\n" + start(2, 105, "/nix/store/../a.drv") + start(3, 105, strings.TrimSuffix(drvA, ".drv")) +
				start(4, 108, "--option") + logged(1, "a") + logged(2, "a") + `@nix {"action":"stop","id":4}` + "\n" +
				start(5, 105, drvA) + `@nix {"action":"result","fields":[7],"id":5,"type":101}` + "\n",
			[]Event{{Kind: BuildStarted, Time: at(0), Path: drvA}, {Kind: BuildLine, Time: at(1), Path: drvA}},
		},
		{
			"what is copied to and for a builder",
			`@nix {"action":"start","id":1,"type":103,"text":"copying 1 paths"}` + "\n" + `@nix {"action":"result","fields":[1,1,0,0],"id":1,"type":105}` + "\n" +
				`@nix {"action":"start","id":2,"type":103,"text":""}` + "\n" + `@nix {"action":"result","fields":[2,"3"],"id":2,"type":105}` + "\n" +
				`@nix {"action":"result","fields":[2,3],"id":2,"type":105}` + "\n" + `@nix {"action":"result","fields":[2,4],"id":2,"type":105}` + "\n",
			[]Event{{Kind: FetchCounted, Time: at(0), Traffic: Traffic{Paths: 2}}},
		},
		{
			"what arrives",
			`@nix {"action":"start","id":1,"type":100,"text":"copying path '/nix/store/a' to 'ssh://builder'"}` + "\n" + `@nix {"action":"result","fields":[1,2,0,0],"id":1,"type":105}` + "\n" +
				`@nix {"action":"start","id":2,"type":100,"text":"copying path '/nix/store/a' from 'https://cache'"}` + "\n" + `@nix {"action":"result","fields":[2,9,0,0],"id":2,"type":105}` + "\n" +
				`@nix {"action":"result","fields":[2000000,9,0,0],"id":2,"type":105}` + "\n" + `@nix {"action":"result","fields":[2000009,9,0,0],"id":2,"type":105}` + "\n" +
				`@nix {"action":"stop","id":2}` + "\n" + `@nix {"action":"stop","id":1}` + "\n",
			[]Event{{Kind: FetchProgress, Time: at(0), Traffic: Traffic{Bytes: 2000000}}, {Kind: FetchProgress, Time: at(1), Traffic: Traffic{Bytes: 9}}},
		},
		{
			"messages",
			`@nix {"action":"msg","level":0,"msg":"error: a","raw_msg":" \u001b[1ma\u001b[0m\n  b\n"}` + "\n" +
				`@nix {"action":"msg","level":0,"msg":"b"}` + "\n" +
				`@nix {"action":"msg","level":1,"msg":"warning: c"}` + "\n" +
				`@nix {"action":"msg","level":3,"msg":"talk"}` + "\n",
			[]Event{{Kind: ErrorMessage, Time: at(0), Text: "a\n  b"}, {Kind: ErrorMessage, Time: at(1), Text: "b"}, {Kind: WarnMessage, Time: at(2), Text: "warning: c"}},
		},
	} {
		if diff := cmp.Diff(test.want, read(t, test.log), cmp.Transformer("nil", func(e []Event) []Event { return append([]Event{}, e...) })); diff != "" {
			t.Errorf("%s:\n%s", test.what, diff)
		}
	}
}

// A line of 2 MB is read. A line above the limit is left out, and the next one is read.
func TestLogReaderLongLines(t *testing.T) {
	long := strings.Repeat("x", 2_000_000)
	events := read(t, start(1, 105, drvA), logged(1, long), logged(1, "next"))
	if len(events) != 3 || events[1].Text != long || events[2].Text != "next" {
		t.Errorf("%d events", len(events))
	}

	piece := strings.Repeat("x", 1<<20)
	pieces := []string{start(1, 105, drvA), strings.TrimSuffix(logged(1, ""), "\"],\"id\":1,\"type\":101}\n")}
	for range maxLogLine/len(piece) + 1 {
		pieces = append(pieces, piece)
	}
	pieces = append(pieces, "\"],\"id\":1,\"type\":101}\n", logged(1, "next"))
	r, got := newReader()
	for _, p := range pieces {
		_, _ = r.Write([]byte(p))
		if len(r.partly) > maxLogLine {
			t.Fatalf("it keeps %d bytes", len(r.partly))
		}
	}
	if events = *got; len(events) != 3 || events[1].Kind != WarnMessage || len(events[1].Text) > 100 || events[2].Text != "next" {
		t.Errorf("%d events", len(events))
	}
}

// Activities and messages are bounded; messages after the end of a build are not lost to earlier
// ones.
func TestLogReaderBounds(t *testing.T) {
	r, got := newReader()
	line := func(text string) { _, _ = r.Write([]byte(text)) }
	line(start(1, 105, drvA))
	for range 3 * maxMessages {
		line(`@nix {"action":"msg","level":0,"msg":"error: flood"}` + "\n")
		line(`@nix {"action":"msg","level":1,"msg":"flood"}` + "\nflood\n")
	}
	line(`@nix {"action":"stop","id":1}` + "\n" + `@nix {"action":"msg","level":0,"msg":"` + strings.Repeat("é", maxMessageSize) + `"}` + "\n")
	events := *got
	if len(events) != maxMessages+3 {
		t.Fatalf("%d events", len(events))
	}
	if e := events[maxMessages]; e.Kind != WarnMessage || e.Text != "further messages are left out until a build ends" {
		t.Errorf("got %v %s", e.Kind, e.Text)
	}
	if e := events[len(events)-1]; e.Kind != ErrorMessage || len(e.Text) > maxMessageSize+len("…") || !utf8.ValidString(e.Text) {
		t.Errorf("got %v of %d bytes", e.Kind, len(e.Text))
	}
	for id := range maxActivities + 10 {
		line(start(10+id, 108, strings.TrimSuffix(drvA, ".drv")))
		line(fmt.Sprintf(`@nix {"action":"start","id":%d,"type":102,"text":""}`+"\n", 10+id))
	}
	if len(r.active) > maxActivities || len(r.counts) > maxActivities {
		t.Errorf("it keeps %d and %d activities", len(r.active), len(r.counts))
	}
}
