// Command nix-matrix stands in for the real one: it is built in a moment.
package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

var version = "none"

func main() {
	say("args " + strings.Join(os.Args[1:], "|"))
	say("version " + version)
	if len(os.Args) > 1 && (os.Args[1] == "manual" || os.Args[1] == "completion") {
		return // they are the same everywhere
	}
	dir, _ := os.Getwd()
	say("dir " + dir)
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Sum != "" { // "go install" has built it
		say("module " + info.Main.Version)
	}
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		say("pid " + strconv.Itoa(os.Getpid()))
		got := <-signals
		say("signal " + got.String())
		os.Exit(7)
	}
}

func say(line string) { _, _ = os.Stdout.WriteString(line + "\n") }
