// Command nix-matrix stands in for the real one: it is built in a moment.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

var version = "none"

func main() {
	dir, _ := os.Getwd()
	say("args " + strings.Join(os.Args[1:], "|"))
	say("version " + version)
	say("dir " + dir)
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
