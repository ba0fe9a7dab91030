// Package attictest has a stand-in for an Attic server, with one cache, that is
// stricter than the real one: it refuses what that ignores, such as unknown
// fields or a store path that is not of its hash. It re-hashes every NAR, serves
// back what it has taken as a binary cache that Nix substitutes from, and fails
// on request.
package attictest
