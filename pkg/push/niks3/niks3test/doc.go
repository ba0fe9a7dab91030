// Package niks3test has a stand-in for a niks3 server and the storage behind it, which is stricter than the
// real ones: it refuses what they ignore, such as unknown fields, objects that refer to none, and requests
// with a token where none belongs. It checks each NAR and narinfo that is uploaded, keeps them in a directory,
// serves them as a binary cache that Nix substitutes from, and fails on request.
package niks3test
