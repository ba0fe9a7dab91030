package packtest

import "slices"

// The records of the pack for Lies. Victim refers to Bystander. It has several files, of which the first is of several
// chunks and the last of one, and references in files and in the skeleton. The two have no chunk in common, and
// none in another pack.
const (
	Bystander = 0
	Victim    = 1
)

// A Lie is what a hostile pack may say.
type Lie struct {
	Name string
	// Tell changes a pack of the two paths so that a reader must refuse Victim.
	Tell func(p *Pack)
	// All says that Bystander is refused, too, because the tables of the pack are wrong.
	All bool
}

// Lies returns lies, each of which is the only one.
func Lies() []Lie {
	return []Lie{
		{Name: "a byte of the last file is at the end of the one before", Tell: func(p *Pack) {
			p.Length = p.Lengths()
			runs := p.Runs(Victim, Files)
			last := runs[len(runs)-1]
			p.Length[last.First+last.Count-2]++
			p.Length[last.First+last.Count-1]--
		}},
		{Name: "a chunk is empty", All: true, Tell: func(p *Pack) {
			p.Length = p.Lengths()
			first := p.Runs(Victim, Files)[0].First
			p.Length[first+1], p.Length[first] = p.Length[first]+p.Length[first+1], 0
		}},
		{Name: "a chunk is too large", All: true, Tell: func(p *Pack) {
			p.Length = p.Lengths()
			run := p.Runs(Victim, Files)[0]
			for i := run.First + 1; i < run.First+run.Count; i++ {
				p.Length[run.First] += p.Length[i] - 1
				p.Length[i] = 1
			}
		}},
		{Name: "a chunk ends after its frame", All: true, Tell: func(p *Pack) {
			p.Length = p.Lengths()
			p.Length[len(p.Length)-1]++
		}},
		{Name: "chunks end before their frame", All: true, Tell: func(p *Pack) {
			p.Length = p.Lengths()
			p.Length[len(p.Length)-1]--
		}},
		{Name: "there are more lengths than chunks", All: true, Tell: func(p *Pack) { p.Length = append(p.Lengths(), 1) }},
		{Name: "there are fewer lengths than chunks", All: true, Tell: func(p *Pack) { p.Length = p.Lengths()[1:] }},
		{Name: "hashes that compress", All: true, Tell: func(p *Pack) {
			p.Changed = func(p *Pack, frames [][]byte) {
				n := len(frames) - 2
				frames[n] = encoder.EncodeAll(make([]byte, p.Places[n][2]), nil)
			}
		}},
		{Name: "there are fewer hashes than chunks", All: true, Tell: func(p *Pack) {
			p.Changed = func(p *Pack, _ [][]byte) { p.Places[len(p.Places)-2][2] -= 16 }
		}},

		{Name: "a reference after the end of a file", Tell: morePositions(FilePositions, 1<<20, 0)},
		{Name: "a reference after the end of the skeleton", Tell: morePositions(NodePositions, 1<<20, 0)},
		{Name: "a reference far before the beginning of a file", Tell: morePositions(FilePositions, 1<<64-(1<<20), 0)},
		{Name: "a reference far before the beginning of the skeleton", Tell: morePositions(NodePositions, 1<<64-(1<<20), 0)},
		{Name: "a reference of a file that is not declared", Tell: otherNumber(FilePositions)},
		{Name: "a reference of the skeleton that is not declared", Tell: otherNumber(NodePositions)},
		{Name: "more references than there are", Tell: func(p *Pack) {
			data := p.Stream(Victim, FilePositions)
			p.SetStream(Victim, FilePositions, data[:len(data)-1])
		}},

		{Name: "a run after the last chunk", Tell: func(p *Pack) { p.SetRuns(Victim, Files, Run{0, len(p.Lengths()), 1}) }},
		{Name: "a run over the last chunk", Tell: func(p *Pack) { p.SetRuns(Victim, Files, Run{0, 0, len(p.Lengths()) + 1}) }},
		{Name: "a run of the skeleton after the last chunk", Tell: func(p *Pack) { p.SetRuns(Victim, Skeleton, Run{0, len(p.Lengths()), 1}) }},
		{Name: "a run before the first chunk", All: true, Tell: func(p *Pack) { p.SetRuns(Victim, Files, Run{0, -1, 2}) }},
		{Name: "a run of no chunks", All: true, Tell: func(p *Pack) {
			p.SetRuns(Victim, Files, append(p.Runs(Victim, Files), Run{0, 0, 0})...)
		}},
		{Name: "a run of a source that is not declared", All: true, Tell: func(p *Pack) { p.SetRuns(Victim, Files, Run{len(p.Leans) + 1, 0, 1}) }},
		{Name: "files have fewer chunks than the skeleton says", Tell: func(p *Pack) {
			runs := p.Runs(Victim, Files)
			last := &runs[len(runs)-1]
			if last.Count--; last.Count == 0 {
				runs = runs[:len(runs)-1]
			}
			p.SetRuns(Victim, Files, runs...)
		}},

		{Name: "the contents of another path", Tell: func(p *Pack) {
			p.Records[Victim].Runs, p.Records[Victim].NarSize = p.Records[Bystander].Runs, p.Records[Bystander].NarSize
		}},
		{Name: "the NAR is larger", Tell: func(p *Pack) { p.Records[Victim].NarSize++ }},
		{Name: "the NAR is smaller", Tell: func(p *Pack) { p.Records[Victim].NarSize-- }},
		{Name: "the NAR ends after the skeleton", Tell: func(p *Pack) {
			p.SetStream(Victim, Skeleton, []byte("de"))
			p.Records[Victim].Runs[NodePositions] = nil
		}},
		{Name: "the skeleton does not end", Tell: func(p *Pack) {
			data := p.Stream(Victim, Skeleton)
			p.SetStream(Victim, Skeleton, data[:len(data)-1])
		}},
		{Name: "a frame of another size", Tell: func(p *Pack) {
			p.SetStream(Victim, Skeleton, p.Stream(Victim, Skeleton))
			last := len(p.Counts) - 1
			p.Changed = func(_ *Pack, frames [][]byte) { frames[last] = encoder.EncodeAll([]byte("short"), nil) }
		}},
		{Name: "a frame that is none", Tell: func(p *Pack) {
			p.SetStream(Victim, Skeleton, p.Stream(Victim, Skeleton))
			last := len(p.Counts) - 1
			p.Changed = func(_ *Pack, frames [][]byte) { frames[last] = slices.Repeat([]byte("x"), len(frames[last])) }
		}},
	}
}

// morePositions adds the position of a reference to the last file of the victim, or to its skeleton.
func morePositions(stream int, distance, number uint64) func(*Pack) {
	return func(p *Pack) {
		all, start := positions(p, stream)
		all[start]++
		p.SetStream(Victim, stream, Varints(append(all, distance, number)...))
	}
}

// otherNumber changes the last reference into one that nobody has declared.
func otherNumber(stream int) func(*Pack) {
	return func(p *Pack) {
		all, _ := positions(p, stream)
		all[len(all)-1] = uint64(len(p.Records[Victim].References)) + 1
		p.SetStream(Victim, stream, Varints(all...))
	}
}

// positions returns the numbers of a stream of positions, and which of them says how many there are in the last file.
func positions(p *Pack, stream int) (all []uint64, start int) {
	all = Numbers(p.Stream(Victim, stream))
	if stream == NodePositions {
		return all, 0
	}
	for start = 1; start+1+2*int(all[start]) < len(all); {
		start += 2 + 2*int(all[start])
	}
	return all, start
}
