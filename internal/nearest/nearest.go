// Package nearest finds the correct name for a misspelt one.
package nearest

import (
	"cmp"
	"slices"
	"strings"
)

// Names returns up to most of the names, the most similar to a text first. In the text, an
// asterisk matches any part of a name without a dot, two asterisks match any part.
func Names(text string, names []string, most int) []string {
	type candidate struct {
		name     string
		distance int
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var candidates []candidate
	for _, name := range names {
		if name != "" {
			candidates = append(candidates, candidate{name, distance(text, name)})
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var best []string
	for _, c := range candidates[:min(most, len(candidates))] {
		best = append(best, c.name)
	}
	return best
}

// Name returns the most similar name that differs from a text in at most a third of the
// characters, or begins with the text. It returns "" if there is none.
func Name(text string, names []string) string {
	const longest = 100 // bytes, because names may be foreign
	if len(text) > longest {
		return ""
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return len(name) > longest })
	fold := strings.ToLower(text)
	for _, name := range Names(text, names, len(names)) {
		near := max(1, (len([]rune(text))+1)/3)
		if distance(fold, strings.ToLower(name)) <= near || len(text) > 2 && strings.HasPrefix(strings.ToLower(name), fold) {
			return name
		}
	}
	return ""
}

// Hint returns the end of a message about a misspelt name: " (did you mean NAME?)",
// or "" if no name is similar.
func Hint(text string, names []string) string {
	if name := Name(text, names); name != "" && name != text {
		return " (did you mean " + name + "?)"
	}
	return ""
}

// distance returns how many characters must be changed, added or removed to turn a match of the
// glob into the name. Characters that asterisks match count nothing.
func distance(glob, name string) int {
	from, to := []rune(glob), []rune(name)
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, c := range from {
		if c == '*' {
			many := i > 0 && from[i-1] == '*' || i+1 < len(from) && from[i+1] == '*'
			for j, d := range to {
				if many || d != '.' {
					row[j+1] = min(row[j+1], row[j])
				}
			}
			continue
		}
		before := row[0]
		row[0]++
		for j, d := range to {
			cost := before
			if c != d {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(to)]
}
