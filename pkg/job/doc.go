// Package job holds the documents that travel between the jobs of a workflow: the Plan (all
// that discovery found), its Entries (the rows of the job matrix) and the Results (the outcomes
// of entries).
//
// All of them are plain JSON with a "version". A reader refuses unknown versions, and treats
// every field as hostile: a matrix row comes from a job output, a Result from an artifact that
// any job of the run could have written. Therefore [ParseEntry], [ParsePlan] and [ParseResult]
// check all fields.
//
// None of these documents ever carries a secret.
package job

// Version is the version of the documents' format. It is written into each
// Plan and Result; a document of another version is refused.
const Version = 1
