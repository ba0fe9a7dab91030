// Command go-actions-cache saves standard input in the Actions cache service
// that the environment names, or writes what is there to standard output.
//
//	go-actions-cache save KEY <FILE
//	go-actions-cache load KEY [PREFIX…] >FILE
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"

	actionscache "github.com/tonistiigi/go-actions-cache"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: go-actions-cache save|load KEY [PREFIX…]")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, command string, keys []string) error {
	service, err := actionscache.TryEnv(actionscache.Opt{})
	if err != nil {
		return err
	}
	if service == nil {
		return errors.New("the environment names no service")
	}
	switch command {
	case "save":
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return service.Save(ctx, keys[0], actionscache.NewBlob(data))
	case "load":
		entry, err := service.Load(ctx, keys...)
		if err != nil {
			return err
		}
		if entry == nil {
			return errors.New("miss")
		}
		return entry.WriteTo(ctx, os.Stdout)
	}
	return errors.New("no such command: " + command)
}
