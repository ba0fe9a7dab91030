// Package verdict judges a run: it compares the Results with the Plan, and the targets with the
// record of the default branch. It is pure: the same documents give the same verdict.
//
// The verdict is a gate. It is green only if
//
//   - there is a Plan, and every one of its targets was evaluated;
//   - each target that is to be built has a successful TargetResult (same number,
//     attribute path and derivation) in a Result of its entry and of this Plan,
//     and that Result has no other error: no step after the build failed, no
//     required push failed, and the deadline has not come;
//   - of the jobs in needs, none failed, was cancelled or, if there is anything to
//     build, was skipped;
//   - with nothing to build, discovery is known to have succeeded.
//
// A missing part is red. A cancelled run without other errors is "cancelled": its
// targets without a Result do not count as failures. An entry that its own deadline
// stopped was not cancelled.
//
// In [Verdict.Reason] and [Verdict.Next], foreign text is only in code spans; all other fields
// of a Verdict may be hostile, and package report makes them safe to show.
package verdict
