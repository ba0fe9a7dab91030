// Package storecache carries parts of the Nix store through a cache, as packs (see package
// pack) of three kinds:
//
//   - A drv pack has the derivations that a plan needs, with all that they refer to, for
//     those who build. [PackDrvs] makes it, [RestoreDrvs] restores what an entry needs.
//   - Inputs are the sources of a flake's inputs, for who evaluates: [SaveInputs],
//     [RestoreInputs].
//   - Store packs have what was built, or all that a build took, for later runs. [New]
//     says which paths are new, a [Saver] puts them into packs of about [PackSize], an
//     [Index] says what lies where, and a [Restorer] brings closures back by an engine (see
//     package engine).
//
// What comes from a cache is hostile until it is checked: of a path only that content
// becomes valid which has the hash in the index, and the content address if the index
// says that it has one; and what refers to a path that did not come does not become valid
// either. Where the writers of the packs are not trusted, an [Acceptance] leaves out the
// paths that nothing but the index vouches for.
//
// # Index
//
// An index is a document of its own in the cache:
//
//	"nixmidx1", SHA-256 of the rest, zstd(JSON)
//
// sealed as a whole when there is a key. The JSON is an object of
//
//	version  1
//	packs    per pack an object of
//	           key    that it is stored under
//	           size   bytes
//	           used   when a path of it was last needed, or it was saved; RFC 3339
//	           index  the pack's own, see package pack, and of a sealed pack its salt:
//	                  base64
//
// A path that several packs have is taken from the first of them. An index is stored after
// the packs that it names, under a key that nobody writes twice,
//
//	ID-index-1+SEAL+SYSTEM+REF+RUN.TRY
//
// with the fingerprint of the key that it is sealed with, or nothing, the system of the
// paths, the ref that it was made from and whatever tells this run from others. (No part
// has a "+" of its own.) The newest of a ref counts, and who reads takes
// that of its own ref and those of the refs that it goes to together. It names only packs
// that the runs of its ref have saved, so that no ref pushes out what another one has. A
// pack that an index names and that is not there is a miss, no more. The key of a pack is
//
//	ID-pack-HASH-TRY
//
// with a hash of its paths and their NAR hashes, so that the same is stored once.
package storecache
