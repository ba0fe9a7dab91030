// Command act-cache serves the cache service that act has, in version 1 of the
// protocol. It prints its address, and ends when its standard input does.
//
//	act-cache DIRECTORY
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/nektos/act/pkg/artifactcache"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: act-cache DIRECTORY")
	}
	handler, err := artifactcache.StartHandler(os.Args[1], "", "127.0.0.1", 0, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(handler.ExternalURL() + "/")
	io.Copy(io.Discard, os.Stdin)
	if err := handler.Close(); err != nil {
		log.Fatal(err)
	}
}
