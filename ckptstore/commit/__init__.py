"""The commit: what makes a checkpoint whole or absent.

Rules, kept by every module of this folder (`docs/guarantees.md` says how each is tested):

1. A bundle is its files, then its manifest, written last, create-only, and nothing is changed
   afterwards. Files without a manifest do not exist for anyone.
2. The newest committed generation, or the step that is asked for, is the truth. The view is a
   copy for people: it is never believed, only looked at for hand edits.
3. What was handed out is pinned: a state that is gone raises, and never turns into another.
4. Removal goes manifest first. What may still be somebody's commit is left alone.
"""
