// Package httpcall sends HTTP requests to servers that fail: it repeats a request where that
// may help, and never waits for ever. The Actions cache, Attic, niks3 and GitHub's REST API use it
// by one contract:
//
//   - A try fails without an answer, with a part of one, or with 429 or 5xx except 501. It is
//     repeated, but not because of a certificate, a redirection without end, or a context that
//     has ended.
//   - The pause before the next try is the one of the header Retry-After, in seconds or as a
//     date, or else the caller's. If it is longer than the context lasts, or the server's is
//     longer than the caller allows, the answer is final.
//   - A [Transport] gives up a try that makes no progress, with a [StalledError], and bounds
//     the answer. It reads all of an answer before it returns.
//   - Errors have no address, because its path or query may be a secret. A server's text is one
//     bounded line in them, without the caller's secrets.
package httpcall
