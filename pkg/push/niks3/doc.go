// Package niks3 pushes store paths to a binary cache in a bucket of S3, by way of a niks3 server, which
// signs paths, hands out presigned addresses for the uploads, and collects garbage in the bucket.
//
// The protocol has no specification. This is the behaviour of the server (github.com/Mic92/niks3, server),
// of all its releases. Addresses are relative to that of the server; all requests but the first carry
// "Authorization: Bearer TOKEN", which is a fixed token or one by which a CI job proves its identity
// (OpenID Connect). Errors are lines of text.
//
//	GET  api/cache-config?issuer=ISSUER  takes no token, and answers {"substituter_url",
//	     "public_keys": […], "oidc_audience"}: where the cache is read, the keys that sign it, and for
//	     whom a token of that issuer must be, each empty where the server does not know it.
//	POST api/pending_closures            of {"closure": KEY, "objects": [{"key", "type", "refs": [KEY…],
//	     "nar_size"}…]} answers {"id", "pending_objects": {KEY: {"type", "presigned_url" or
//	     "multipart_info": {"upload_id", "part_urls": […]}}}} with the objects that the bucket lacks.
//	     The closure is the narinfo of a path that is to be kept, with everything that its refs reach.
//	     409 says that another client uploads one of the NARs now.
//	POST api/multipart/request-parts     of {"object_key", "upload_id", "start_part_number",
//	     "num_parts"} answers {"start_part_number", "part_urls"}, where there are too few.
//	POST api/multipart/complete          of {"object_key", "upload_id", "parts": [{"part_number",
//	     "etag"}…]} ends an upload. 404 says that another client has ended its upload of the NAR,
//	     if HEAD api/objects/KEY answers 204, or else that the upload is gone.
//	POST api/pending_closures/ID/sign    of {"narinfos": {KEY: {"store_path", "url", …}}} answers
//	     {"signatures": {KEY: ["NAME:BASE64"…]}}.
//	POST api/pending_closures/ID/complete publishes the closure, when all objects are uploaded.
//
// A narinfo has the key HASH.narinfo, and is stored compressed by zstd with that content encoding. A NAR has
// the key nar/NARHASH.nar.zst; one of at most 10 MiB gets one address, and a larger one an address for each
// part. The server checks no NAR, so that is done here. Refs may name objects that are not in the request.
package niks3
