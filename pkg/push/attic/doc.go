// Package attic pushes store paths to an Attic server, a binary cache that accepts
// uncompressed NARs, which it chunks, compresses and signs itself.
//
// The protocol has no specification. This is the behaviour of Attic's server
// (github.com/zhaofengli/attic, server/src/api/v1). All addresses are
// relative to the API endpoint, which ends in a slash, and all requests carry
// "Authorization: bearer TOKEN", unless the cache is public and only read from.
//
//	GET  _api/v1/cache-config/CACHE  takes the permission to pull, and answers
//	     {"api_endpoint", "substituter_endpoint", "public_key", "store_dir",
//	     "upstream_cache_key_names", …}, each of which may be missing.
//	POST _api/v1/get-missing-paths   takes the permission to push. Of
//	     {"cache", "store_path_hashes": […]} it answers {"missing_paths": […]};
//	     a hash is the 32 characters at the start of a store path's name.
//	PUT  _api/v1/upload-path         takes the permission to push, and the NAR
//	     as body. The description of the path is JSON in the header
//	     X-Attic-Nar-Info, or, from 4 KiB on, before the NAR in the body; then
//	     X-Attic-Nar-Info-Preamble-Size is its length, at most 1 MiB. The server
//	     checks hash and size of the NAR, and answers {"kind": "Uploaded" or
//	     "Deduplicated"}.
//
// Errors are {"code": STATUS, "error": NAME, "message": TEXT}, unless they are a
// proxy's. A token that has expired is treated like none: then a private cache
// answers 401, and a public one, which anybody may read, 403.
//
// A server that requires no proof of possession answers before it has read a NAR
// that it knows, and each server refuses an upload that the token does not
// permit. Large uploads therefore wait for "100 Continue". References are signed
// in the order in which they are sent, but Nix verifies them sorted, so they are
// sent sorted.
package attic
