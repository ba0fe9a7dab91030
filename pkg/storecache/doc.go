// Package storecache stores parts of the Nix store in a cache, as packs (see package
// pack) of three kinds:
//
//   - A drv pack has the derivations of a plan and their closures, for the jobs that build.
//     [PackDrvs] makes it, [RestoreDrvs] restores the derivations of an entry.
//   - Inputs are the sources of a flake's inputs, for evaluations: [SaveInputs],
//     [RestoreInputs].
//   - Store packs have built paths, or all new paths of a build, for later runs. [New]
//     returns the new paths, a [Saver] puts their new contents into packs of about [PackSize], an
//     [Index] has their positions, and a [Restorer] restores closures with an engine (see
//     package engine). An [OnDemand] returns single paths to the process that asks for them.
//
// Data from a cache is hostile until it is checked: a path becomes valid only if its content
// has the hash in the index, and the content address if the index has one, and if its
// references become valid. Where the writers of the packs are not trusted, an [Acceptance]
// leaves out paths that have no proof of their own.
//
// # Index
//
// An index is a document of its own in the cache:
//
//	"nixmidx1", SHA-256 of the rest, zstd(JSON)
//
// sealed as a whole when there is a key. The JSON is an object of
//
//	version  2
//	packs    per pack an object of
//	           key      of the pack in the cache
//	           size     bytes
//	           used     when a path of it was last needed, or it was saved; RFC 3339
//	           sum      SHA-256 of the pack's own index
//	           restore  how many bytes at its end have that index and the lengths of its chunks
//	           save     the same with the hashes of its chunks
//	           chunks   bytes of its chunks, decompressed
//	           paths    the first 8 bytes of the hash of each path that can be restored, base64
//	           leans    for each pack that it leans on the number in this list, or -1 if it
//	                    is in the index of another ref, and how many bytes it needs of it
//	           outer    the sums of the latter
//
// so that the index of a ref stays small. The packs' own indexes are read when their paths are
// needed. Version 1, which is still read, has packs of records with their whole index.
//
// A path in several packs is read from the first of them that can be read. An index is stored after
// the packs that it names, under a key that is written only once,
//
//	ID-index-2+SEAL+SYSTEM+REF+RUN.TRY
//
// with the fingerprint of the encryption key, or nothing, the system of the paths, the ref
// of the run and a name of the run. (No part contains a "+".) The newest index of a ref
// counts, and a job merges that of its own ref with those of the refs that it merges into. An
// index names only packs that runs of its ref saved, so that no ref displaces the packs of
// another. A missing pack is only a cache miss. The key of a pack is
//
//	ID-pack-HASH-TRY
//
// with a hash of its own index, so that equal packs are stored once. A large pack is uploaded while it is written, if the
// cache can do that: its hash is that of the paths that are saved, and of the packs that are known.
//
// A pack leaves the index when none of its paths was needed for some time and no pack that stays
// leans on it. A pack of which only a little is still needed is no longer leaned on: the next saves store
// that little again, so that it can go.
package storecache
