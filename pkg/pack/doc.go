// Package pack reads and writes packs: files of store paths that can be
// restored in part. It is pure io and runs no programs.
//
// # Format
//
// A pack is a concatenation of zstd frames:
//
//	frame 0 … frame n-1   records
//	frame n               the closing u64 0
//	skippable frame       the index
//
// Decompressed, a pack is the stream that `nix-store --export` writes, so that
// `zstd -dc FILE | nix-store --import` restores it with stock tools. For each
// path this stream has one record, in reference order; all integers are u64
// little endian, strings are a length, the bytes, and zeros up to a multiple of
// eight:
//
//	1, NAR, 0x4558494e, store path, number of references, references…, deriver or "", 0
//
// A frame holds one large record, or several small ones up to [FrameSize] bytes,
// and decodes on its own: a byte range of the pack restores the paths in it.
//
// The index travels in a frame that zstd skips (RFC 8878, 3.1.2, magic number
// 0x184D2A5E). Its payload is
//
//	zstd(index JSON), u64 length of that, the 8 bytes "nixmpack"
//
// so that a reader finds it from the end of the file. See [Index] for what is
// in it. A pack may come from somebody hostile. What a reader hands on is made
// from the index, which its user checks against a hash that it trusts
// ([ReadIndex]), and from NARs that are checked against the hashes in the index;
// whatever else stands in the frames is ignored.
package pack
