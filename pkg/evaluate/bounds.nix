# Restricts a walk to a part: a beginning, an end, and the positions to walk to within that. The
# arguments from, until and only of evaluate.nix are the bounds of the whole walk.
let
  inherit (builtins) head tail;

  # The bounds as seen from a child; null if it is out of them.
  narrow =
    bounds: name:
    let
      inherit (bounds) from until only;
      first = from != null && name == head from.path;
      final = until != null && name == head until;
    in
    if
      from != null && name < head from.path
      || first && tail from.path == [ ] && from.after
      || until != null && head until < name
      || final && tail until == [ ]
      || only != null && !(only ? ${name})
    then
      null
    else
      {
        from = if first && tail from.path != [ ] then from // { path = tail from.path; } else null;
        until = if final then tail until else null;
        only = if only == null || only.${name} == { } then null else only.${name};
      };

  # As narrow, for the number of a root.
  narrowRoot =
    bounds: n:
    let
      here = narrow (bounds // { only = null; }) n;
      below = bounds.only.${toString n};
    in
    if here == null || bounds.only == null then
      here
    else if !(bounds.only ? ${toString n}) then
      null
    else
      here // { only = if below == { } then null else below; };
in
{
  inherit narrow narrowRoot;
}
