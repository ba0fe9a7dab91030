package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// entry N MATRIX FILE writes the row number N of a matrix to a file. MATRIX may be stdout.
func entry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: entry N MATRIX FILE")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(rowOf(ts, args[1], n)), 0o600))
}

// rowOf returns a row of a matrix, as JSON.
func rowOf(ts *testscript.TestScript, matrix string, n int) string {
	var m struct{ Include []json.RawMessage }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(matrix)), &m))
	if n >= len(m.Include) {
		ts.Fatalf("%s has %d rows", matrix, len(m.Include))
	}
	var row bytes.Buffer
	ts.Check(json.Compact(&row, m.Include[n]))
	return row.String()
}

// [!] build ROW ARGUMENT… builds an entry: of a file with a row of the matrix, or the one of that
// number in matrix.json.
func buildEntry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: build ROW ARGUMENT…")
	}
	judge(ts, neg, ts.Exec("nix-matrix", buildArgs(ts, args)...))
}

func buildArgs(ts *testscript.TestScript, args []string) []string {
	var row string
	if n, err := strconv.Atoi(args[0]); err == nil {
		row = rowOf(ts, "matrix.json", n)
	} else {
		row = strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
	}
	return append([]string{"build", "--job", row}, args[1:]...)
}

// [!] glob PROGRAM ARGUMENT… runs a program with arguments that are patterns for files, each of which
// must match some.
func runGlob(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: glob PROGRAM ARGUMENT…")
	}
	var all []string
	for _, arg := range args[1:] {
		if !strings.Contains(arg, "*") {
			all = append(all, arg)
			continue
		}
		files, err := filepath.Glob(ts.MkAbs(arg))
		ts.Check(err)
		if len(files) == 0 {
			if neg {
				return // the program would fail
			}
			ts.Fatalf("nothing matches %s", arg)
		}
		all = append(all, files...)
	}
	judge(ts, neg, ts.Exec(args[0], all...))
}

// exit CODE PROGRAM ARGUMENT… runs a program, or build, that ends with an exit code.
func exit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE PROGRAM ARGUMENT…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	program, args := args[1], args[2:]
	if program == "build" {
		program, args = "nix-matrix", buildArgs(ts, args)
	}
	got := 0
	var ended *exec.ExitError
	if err := ts.Exec(program, args...); errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("the exit code is %d, not %d", got, want)
	}
}

// judge ends a script whose program did not end as it was to.
func judge(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case err == nil && neg:
		ts.Fatalf("unexpected command success")
	case err != nil && !neg:
		ts.Fatalf("unexpected command failure: %v", err)
	}
}
