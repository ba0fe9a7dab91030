package job

import (
	"path"
	"strings"
)

// DrvName returns the readable part of a store path: without directory, hash and the .drv of
// a derivation.
func DrvName(storePath string) string {
	name := strings.TrimSuffix(path.Base(storePath), ".drv")
	if len(name) > 33 && name[32] == '-' {
		name = name[33:]
	}
	return name
}
