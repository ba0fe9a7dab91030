// Package verdict compares Results with the Plan, and the run with the record of the default
// branch. It is pure: the same documents give the same verdict.
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
// A missing part is red and not just absent. A run that was cancelled is
// "cancelled" when nothing else is wrong: then targets without a Result are not
// counted as failures. An entry that its own deadline stopped was not cancelled.
//
// [Verdict.Reason] and [Verdict.Next] hold no foreign text that is not a code span; all else
// of a Verdict may be hostile, and is for package report to show.
package verdict
