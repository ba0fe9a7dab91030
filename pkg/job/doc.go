// Package job holds the documents that travel between the jobs of a workflow:
// the Plan (everything that discovery found out), its Entries (the rows of the
// job matrix) and the Results (what became of each entry).
//
// All of them are plain JSON with a "version". A reader refuses versions that
// it does not know, and takes every field as hostile: a matrix row comes from a
// job output, a Result from an artifact that any job of the run could have
// written. [ParseEntry], [ParsePlan] and [ParseResult] therefore check what
// they return.
//
// None of these documents ever carries a secret.
package job

// Version is the version of the documents' format. It is written into each
// Plan and Result; a document of another version is refused.
const Version = 1
