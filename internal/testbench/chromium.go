package testbench

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// DOM opens a page of this machine in a browser and gives its HTML when the page's
// scripts are done.
func DOM(t testing.TB, address string) string {
	t.Helper()
	return chromium(t, "--virtual-time-budget=60000", "--dump-dom", address)
}

// Screenshot shows a page of this machine in a window of a browser, whose size is in
// pixels.
func Screenshot(t testing.TB, address string, width, height int) image.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "screenshot.png")
	chromium(t, "--hide-scrollbars", fmt.Sprintf("--window-size=%d,%d", width, height), "--screenshot="+file, address)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shot, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return shot
}

// chromium runs the browser, with a profile of its own and no network but this
// machine, and gives what it printed.
func chromium(t testing.TB, args ...string) string {
	t.Helper()
	args = append([]string{
		"--user-data-dir=" + t.TempDir(), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking",
	}, args...)
	cmd := exec.CommandContext(t.Context(), Path(t, "bin/chromium"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, &stderr)
	}
	return string(output)
}
