module github.com/org/nix-matrix

go 1.26
