// Package nixtest provides a Nix with a store of its own to tests of packages that use package
// nix. The tests need root, and a testbench.PrivateProcess.
package nixtest
