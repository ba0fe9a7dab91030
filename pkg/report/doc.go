// Package report shows a verdict, a Plan or a Result as Markdown, as a page of HTML, as text
// and as annotations. It is pure: the same documents give the same bytes.
//
// Attribute paths, derivations, log lines and messages are hostile text. They
// appear in Markdown only inside of code spans and fenced code blocks, which
// renderers search neither for markup nor for links or mentions, in diagrams only
// with what means nothing to Mermaid, and without control characters everywhere.
package report
