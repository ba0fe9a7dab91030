package nix

import "runtime"

// HostSystem returns Nix's name of the system that this program was built for, such as
// x86_64-linux, without asking Nix.
func HostSystem() string {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
		arch = "x86_64"
	case "arm64":
		arch = "aarch64"
	}
	return arch + "-" + runtime.GOOS
}
