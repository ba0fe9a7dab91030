// Package s3 is a cache in a bucket of S3, R2 or another server that speaks S3's protocol.
//
// # Objects
//
// A blob is an object whose name is the prefix of the address, the name of its scope and its key,
// separated by slashes; the default scope has no name. A key of more than 200 characters is cut into
// pieces, all but the last with "~/" at the end, because servers that have files below them allow
// names of 255 bytes. A [Scope] is what package action calls the
// cache of a ref: a job writes into one, and reads that and then those of the refs that it trusts.
// A bucket knows no refs, so this package makes the difference, by names alone: the holder
// of credentials that may write everywhere can write everywhere. A bucket policy can confine a job
// for a proposal to the names that begin with PREFIX/proposals/.
//
// Two kinds of objects have names that no key has: .conditional, by which a process finds out
// whether the server creates objects conditionally, and .reserved/KEY, which reserves a key while a
// blob of several parts is uploaded. What a process that was killed has reserved is free again after two hours.
//
// # Creating
//
// A key is created with the header If-None-Match: *, which S3, R2, MinIO, Ceph and others honour.
// Before its first save, a process creates an object that is there already: a server that does so
// honours nothing, and [cache.LastWins] is true for the cache. Blobs of several parts are
// reserved first, because not all servers honour the header at the end of such an upload.
//
// A creation whose answer was lost is sent again, and then refused because of itself. So each
// object has a mark by which a process knows its own (metadata "nix-matrix-save").
//
// A save that is cancelled or loses all answers may leave a whole object. A failed upload of
// several parts is aborted.
//
// # Finding
//
// The newest object of a prefix is the one with the latest time of modification in a listing, which
// most servers count in seconds; of several, the one whose name sorts last. A listing that lags
// looks like a miss. Each range is read with the object's ETag, so that an object that was
// replaced or removed meanwhile is a miss and no mixture.
package s3
