# Describes a target: its derivation, and the outputs that are wanted of it.
{
  text,
  meta, # meta.nix
  say,
}:
let
  inherit (builtins)
    elem
    elemAt
    foldl'
    genList
    getContext
    head
    isList
    length
    listToAttrs
    seq
    unsafeDiscardStringContext
    ;
  inherit (text)
    badText
    first
    isDerivation
    kindOf
    longest
    unique
    words
    ;
  inherit (meta)
    asked
    isAvailable
    metaOf
    positionOf
    refusal
    skipped
    tellMeta
    ;

  # All fields are checked before they are reported, so that an invalid target is only its own
  # failure.
  describe =
    root: path: holder: v:
    let
      system = v.system or "";
      odd = first [
        (badText "its name" longest (v.name or ""))
        (if system == "" then "it has no system" else badText "its system" longest system)
      ];
      own = metaOf v;
      reason = refusal own system;
      wanted = wantedOutputs root v;
    in
    # A configuration that is skipped is not evaluated.
    if skipped holder != null then
      say "skipped" (skipped holder)
    else if !(isDerivation v) then
      say "failed" "it is ${kindOf v}, not a derivation"
    else if odd != null then
      say "failed" odd
    else
      seq
        (say "named" {
          inherit path system;
          name = v.name or "";
        })
        (
          if skipped v != null then
            say "skipped" (skipped v)
          else if reason != null then
            seq (say "refused" reason) (tellMeta holder v)
          else
            seq (if isAvailable own then null else say "unavailable" (positionOf own)) (
              if wanted ? problem then
                say "failed" wanted.problem
              else
                seq
                  (say "target" {
                    inherit (v) drvPath;
                    inherit system;
                    outputs = wanted.names;
                    outPaths = listToAttrs (
                      map (name: {
                        inherit name;
                        value = v.${name}.outPath or null;
                      }) wanted.names
                    );
                  })
                  (
                    seq (say "about" {
                      description = words (v.meta.description or holder.meta.description or null);
                      features = words (v.requiredSystemFeatures or null);
                      runner = words (v.meta.nixMatrix.runner or holder.meta.nixMatrix.runner or null);
                      asked = asked holder v;
                    }) (tellMeta holder v)
                  )
            )
        );

  # The outputs that are wanted of a derivation, or a problem with it. By default, as in Nix,
  # those that its meta names, else the first.
  wantedOutputs =
    root: v:
    let
      outputs = v.outputs or [ (v.outputName or "out") ];
      default = v.outputName or (head outputs);
      installed = v.meta.outputsToInstall or [ ];
      chosen = root.outputs != null || v.outputSpecified or false == true;
      names = unique (
        if root.outputs == [ "*" ] then
          outputs
        else if root.outputs != null then
          root.outputs
        else if chosen || installed == [ ] then
          [ default ]
        else
          installed
      );
      badList =
        what: list:
        if !(isList list) then
          "${what} is ${kindOf list}, not a list"
        else if length list > 200 then
          "${what} has more than 200 names"
        else
          first (map (badText "a name in ${what}" 211) list);
      has = name: elem name outputs && (name == default || v ? ${name});
      drvPath = v.drvPath or null;
      problem = first [
        (if v ? outputName then badText "its outputName" 211 v.outputName else null)
        (badList "its list of outputs" outputs)
        (if outputs == [ ] then "it has no output" else null)
        (if chosen then null else badList "its meta.outputsToInstall" installed)
        (first (
          map (name: if has name then null else "it has no output ${name}: it has ${commas outputs}") names
        ))
        (if drvPath == null then "it has no drvPath" else badText "its drvPath" longest drvPath)
        # Only derivation returns a path whose context is the path itself.
        (
          if getContext drvPath ? ${unsafeDiscardStringContext drvPath} then
            null
          else
            "its drvPath is a string that is not from a derivation"
        )
        (first (
          map (
            name:
            let
              outPath = v.${name}.outPath or null;
            in
            if outPath == null then null else badText "the outPath of its output ${name}" 300 outPath
          ) names
        ))
      ];
    in
    if problem != null then { inherit problem; } else { inherit names; };
  commas =
    list: foldl' (text: n: if n < 20 then "${text}, ${elemAt list n}" else "${text}, …") (head list) (
      genList (n: n + 1) (if length list < 21 then length list - 1 else 20)
    );
in
{
  inherit describe;
}
