// Package actionstest is a stand-in for the GitHub Actions cache service, in
// version 2 of its protocol, for tests. [Server] answers the calls, and hands
// out signed addresses of an [Azurite], Microsoft's own imitation of Azure Blob
// Storage, where clients upload and download as they would at GitHub's.
//
// It is strict: what the service is not known to accept is refused. Scopes are
// not imitated, nor limits of rate and size.
package actionstest
