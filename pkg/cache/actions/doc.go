// Package actions is a cache in the GitHub Actions cache service, with one entry
// for each blob, in both versions of the service's protocol.
//
// The service is internal to GitHub and not documented; this package follows the
// source of its official client, the npm package @actions/cache, and observed
// answers. So every field may be missing, and every failure is an error that
// costs a caller no more than the cache.
//
// # Version 2
//
// github.com and ghe.com. Calls are POST requests of JSON in snake_case to
// {origin}/twirp/github.actions.results.api.v1.CacheService/{method}, with the
// job's token as bearer: CreateCacheEntry reserves a (key, version) and answers
// with the signed address of an Azure blob, FinalizeCacheEntryUpload makes
// the uploaded blob visible, GetCacheEntryDownloadURL finds an entry by key and
// prefixes. Addresses carry their own permission, for upload an hour, for
// download about ten minutes.
//
// # Version 1
//
// GitHub Enterprise Server, and act. Requests to {url}_apis/artifactcache/:
// GET cache?keys=a,b&version=v finds, POST caches reserves, PATCH caches/{id}
// uploads a range, POST caches/{id} commits. act does not refuse to reserve a
// key twice, so a lookup goes first; of two concurrent saves the last wins
// there.
//
// # Versions of entries
//
// Every entry has a key and a version of 64 characters, and is found only by
// requests with the same version. The official client makes it from the paths it
// caches; here it is a constant, so that only this package's own entries are
// found.
package actions
