// Package nixtest gives tests of packages that use package nix a Nix with a store of its
// own. The tests need root, and a testbench.PrivateProcess.
package nixtest
