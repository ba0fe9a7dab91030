// Package actionstest is a stand-in for the GitHub Actions cache service, in
// version 2 of its protocol, for tests. [Server] answers the calls, and hands
// out signed addresses of an [Azurite], Microsoft's own imitation of Azure Blob
// Storage, where clients upload and download as they would at GitHub's; or, where
// speed counts more than that, of a [Disk].
//
// It is strict: a request that the service is not known to accept is refused. Entries are
// of the scope that a token may write to, and seen by those that may read it.
// Limits of rate and size are not imitated.
package actionstest
