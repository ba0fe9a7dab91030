// Package pack reads and writes packs: files of store paths from which some can be
// restored alone. It is pure io and runs no programs.
//
// There are packs of two formats. A pack of records is made for one run, and standard tools restore
// it. A pack of chunks is kept for later runs: it has only the contents that no earlier pack has.
//
// # Packs of records
//
// A pack is a concatenation of zstd frames:
//
//	frame 0 … frame n-1   records
//	frame n               the closing u64 0
//	skippable frame       the index
//
// Decompressed, a pack is the stream that `nix-store --export` writes, so that
// `zstd -dc FILE | nix-store --import` restores it with standard tools. For each
// path this stream has one record, in reference order. All integers are u64
// little endian, strings are a length, the bytes, and zeros up to a multiple of
// eight:
//
//	1, NAR, 0x4558494e, store path, number of references, references…, deriver or "", 0
//
// A frame holds one large record, or several small ones up to [FrameSize] bytes,
// and decodes on its own: a byte range of the pack restores the paths in it. The frame
// of a large record is itself a concatenation of zstd frames, one for each
// [FrameSize] bytes, because these are compressed in parallel.
//
// The index is in a frame that zstd skips (RFC 8878, 3.1.2, magic number
// 0x184D2A5E). Its payload is
//
//	zstd(index JSON), u64 length of that, the 8 bytes "nixmpack"
//
// so that a reader finds it from the end of the file. The JSON is an object of
//
//	version  1
//	paths    store paths: those of the records, in order, then other references and derivers
//	records  per record an object of
//	           h  NAR hash, SHA-256 in hex
//	           n  NAR size, bytes
//	           r  references, numbers of paths; may be missing
//	           d  deriver, number of a path; may be missing
//	           s  signatures, NAME:BASE64; may be missing
//	           c  content address, text:… or fixed:…; may be missing
//	           f  number of its frame
//	           o  its offset in the decompressed frame
//	frames   per frame [offset, size, decompressed length], bytes
//
// Signatures and content addresses are here because the stream has no place for
// them. With them a store accepts a path from a user whom it does not trust.
//
// # Packs of chunks
//
// After a new version of nixpkgs nearly all store paths have other hashes, and nearly all of their
// files have the same contents, but for references. So the contents of each file are cut
// into chunks where the content says so, after the hashes of references were replaced by zeros.
// A chunk that is in this pack or in an earlier one is not stored again: the pack leans on
// the earlier one, except for chunks of less than 128 bytes. A path is four streams of bytes, each cut into chunks:
//
//	files           the contents of its files, one after the other; a chunk has bytes of one file
//	skeleton        the nodes of its NAR, see below
//	node positions  of references in the skeleton
//	file positions  of references in files
//
// A skeleton has for each node of the NAR, in its order, one byte of f (file), x (executable),
// l (symlink), d (directory) or e (end of a directory); then, except at the root and for e, the
// name; then for l the target, and for f and x the number of chunks. Numbers are varints (as in
// encoding/binary), strings a number and the bytes. The size of a file is that of its chunks, so
// that a skeleton stays the same when files change and their number of chunks does not.
//
// Positions are those of one file: their number, then for each the distance from the end of the
// one before, and the number of the hash. Hashes are numbered in the order of the names of the
// path's references and itself, which a change of all hashes leaves as it is. File positions
// have, before those of a file, the distance of its number from that of the last such file.
//
// A path without a skeleton is stored whole: files is its NAR, with all references. So is a path with more than 2^22
// references in a file.
//
// A stream is cut as FastCDC does, into chunks of 16 to 256 KiB, 64 KiB on average (see cut.go); the
// last chunk of a file may be smaller. A chunk is identified by the first half of its SHA-256.
// The chunks of files and those of the other streams have numbers of their own, from 0 on.
//
// A pack is a concatenation of zstd frames: frames of chunks, of about 2 MiB, or 1 MiB for
// chunks of other streams than files; one frame with the hashes of all chunks, those of files
// first, and one with their lengths (varints). Then follows the index as above, but that it has
//
//	version  2
//	records  with, in place of f and o,
//	           x  for each stream its runs: for each the source (0 is this pack, others are one
//	              more than a number in leans), the distance of its first chunk from the end of
//	              the run of this source before it (zigzag), and the number of its chunks
//	chunks   for each frame of chunks how many it has; negative for other streams than files
//	leans    packs with chunks of this pack's paths, by the SHA-256 of their indexes
//	leaned   how many bytes these chunks have, decompressed, for each of them
//
// # Sealed packs
//
// With a [Key], packs and documents are sealed with XChaCha20-Poly1305. Each frame is the
// frame above in pieces of 64 KiB, of which the last may be shorter, each followed by
// a tag of 16 bytes. A sealed pack is
//
//	frame 0 … frame n   sealed
//	key ID              8 bytes
//	salt                32 random bytes
//	index               sealed as one piece: zstd(index JSON)
//	u64                 length of these three
//	"nixmseal"
//
// and the offsets and sizes in its index are of the sealed frames, so that byte
// ranges work as before. The pack's key is derived by HKDF-SHA-256
// from the secret, the salt and the words "nix-matrix pack". The nonce of a piece
// is the u64 number of its frame, the u64 number of the piece in it, 1 if it is the
// frame's last one else 0, and zeros; the index is the frame 2^64-1. So no frame or
// piece can replace another, in this pack or any other, and none can be
// cut off. The sizes of frames are not secret.
//
// A sealed document is the 8 bytes "nixmdoc1", key ID, salt, and its bytes in
// pieces as a frame 0, with a key from the words "nix-matrix document " and its
// context, see [Key.Seal].
//
// # Trust
//
// A pack may be hostile. A reader's records come from the index, which the caller
// checks against a trusted hash ([ReadIndex]), and its NARs are checked against the
// hashes in the index. Everything else in the frames is ignored. The hashes of chunks are not checked
// when they are read: a wrong chunk makes a wrong NAR, which is refused.
package pack
