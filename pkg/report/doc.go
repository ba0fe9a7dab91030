// Package report shows a verdict, a Plan or a Result as Markdown, as a page of HTML, as text
// and as annotations. It is pure: the same documents give the same bytes.
//
// Attribute paths, derivations, log lines and messages are hostile text. In Markdown, they are
// only inside of code spans and fenced code blocks, in which renderers find no markup, links or
// mentions, in diagrams only with characters that mean nothing to Mermaid, and everywhere without
// control characters.
package report
