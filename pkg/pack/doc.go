// Package pack reads and writes packs: files of store paths from which some can be
// restored alone. It is pure io and runs no programs.
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
// hashes in the index. Everything else in the frames is ignored.
package pack
