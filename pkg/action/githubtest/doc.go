// Package githubtest is a stand-in for GitHub's REST API, for tests: the Actions
// caches, comments on pull requests, pull requests with their commits and branches, check
// runs of commits, the repository and the token's owner.
//
// It is strict: a method, path, query, header or body that GitHub does not document,
// or that a careful client does not send, is refused with 400 or 422. It tells a token
// without a permission from one that may not know of the repository, pages as GitHub
// does, and can be told to fail and to limit the rate.
package githubtest
