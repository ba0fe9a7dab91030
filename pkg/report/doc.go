// Package report turns a Plan and its Results into a verdict, and the verdict
// into Markdown, a page of HTML, text and annotations. It is pure: the same
// documents give the same bytes.
//
// The verdict is a gate. It is green only if
//
//   - there is a Plan, and every one of its targets was evaluated;
//   - each target that is to be built has a good TargetResult (same number,
//     attribute path and derivation) in a Result of its entry and of this Plan,
//     and that Result tells of no other trouble: no step after the build failed,
//     no push that is not optional, and the deadline has not come;
//   - of the jobs that the gate waits for, as far as it was told of them, none
//     failed, was cancelled or, while there is something to build, was skipped;
//   - with nothing to build, discovery is known to have succeeded.
//
// What is missing is red and not just absent. A run that was cancelled is
// "cancelled" when nothing else is wrong: then targets without a Result are not
// counted as failures. An entry that its own deadline stopped was not cancelled.
//
// Attribute paths, derivations, log lines and messages are hostile text. They
// appear in Markdown only inside of code spans and fenced code blocks, which
// renderers search neither for markup nor for links or mentions, in diagrams only
// with what means nothing to Mermaid, and without control characters everywhere.
// [Verdict.Reason] and [Verdict.Next] hold no foreign text.
package report
