// Package actions is a cache in the GitHub Actions cache service, one entry a
// blob, in the two protocols that the service has had.
//
// The service is internal to GitHub and not documented; what is known of it
// comes from the source of its official client, the npm package @actions/cache,
// and from watching it. So every field may be missing, and every failure is an
// error that costs a caller no more than the cache.
//
// # Version 2
//
// github.com and ghe.com. Calls are POST requests of JSON in snake_case to
// {origin}/twirp/github.actions.results.api.v1.CacheService/{method}, with the
// job's token as bearer: CreateCacheEntry reserves a (key, version) and answers
// with the signed address of an Azure blob, FinalizeCacheEntryUpload makes what
// was uploaded there visible, GetCacheEntryDownloadURL finds an entry by key and
// prefixes. Addresses carry their own permission, for upload an hour, for
// download about ten minutes.
//
// # Version 1
//
// GitHub Enterprise Server, and act. Requests to {url}_apis/artifactcache/:
// GET cache?keys=a,b&version=v finds, POST caches reserves, PATCH caches/{id}
// uploads a range, POST caches/{id} commits. act does not refuse to reserve a
// key twice, so here a lookup goes before; of two saves at once the last wins
// there.
//
// # Versions of entries
//
// Every entry has, beside its key, a version of 64 characters, and is seen only
// by who asks for the same one. The official client makes it of the paths it
// caches; here it is a constant, so that nothing but this package's own entries
// can be found.
package actions
