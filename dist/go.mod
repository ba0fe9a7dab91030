// A module of its own, so that the binaries of a release are not in the module that "go install" downloads.
module github.com/org/nix-matrix/dist
