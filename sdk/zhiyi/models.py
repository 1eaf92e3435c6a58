"""Models: registration, review, preferences, ownership."""

from __future__ import annotations

from collections.abc import Sequence

from zhiyi import eip712
from zhiyi.chain import Event, TxResult
from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.group import Group, reason_hash
from zhiyi.signers import sign
from zhiyi.types import (
    Model,
    ModelRecord,
    ModelStatus,
    ModelVersion,
    ParentConsent,
    ParentProof,
    PreferenceChange,
    Preferences,
    Review,
    ReviewItem,
    RoyaltyTerms,
    SignedConsent,
    Split,
    TraceKey,
    model_of_license,
    to_address,
    to_bytes,
)


class Models(Group):
    """Model tokens (contract ModelNFT)."""

    def register(
        self,
        record: ModelRecord,
        metadata_cid: str,
        preferences: Preferences,
        collaborators: Sequence[Split] = (),
        parents: Sequence[ParentProof] = (),
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Mints the model token to the caller; `result.model_id` is its number.

        `record.royalty_hash` is left zero, the contract fills it in. Raises TxReverted, e.g. RootAlreadyRegistered.
        """
        if any(record.royalty_hash):
            raise BadInput(
                "leave record.royalty_hash zero: the contract fills it in from collaborators and parents"
            )
        return self._send(
            "ModelNFT",
            "register",
            record.as_tuple(),
            digest_from_cid(metadata_cid),
            preferences.pack(),
            [split.as_tuple() for split in collaborators],
            [proof.as_tuple() for proof in parents],
            dry_run=dry_run,
        )

    def get(self, model_id: int) -> Model:
        """A model as it stands now. Raises NotFound; IntegrityError when events and storage disagree."""
        found = self._events("ModelNFT", "ModelRegistered", {"modelId": model_id})
        if not found:
            raise NotFound(f"model {model_id} is not registered on chain {self._deployment.chain_id}")
        return self._model(found[0], self._events("ModelNFT", "VersionAdded", {"modelId": model_id}))

    def list(self, owner: str | None = None) -> tuple[Model, ...]:
        """All models in the order of registration, or those that `owner` owns now."""
        versions: dict[int, list[Event]] = {}
        for event in self._events("ModelNFT", "VersionAdded"):
            versions.setdefault(event["modelId"], []).append(event)
        registered = self._events("ModelNFT", "ModelRegistered")
        models = (self._model(event, versions.get(event["modelId"], [])) for event in registered)
        wanted = to_address(owner) if owner else None
        return tuple(model for model in models if wanted in (None, model.owner))

    def _model(self, registered: Event, added: Sequence[Event]) -> Model:
        model_id = registered["modelId"]
        first = ModelRecord.from_abi(registered["record"])
        royalties = RoyaltyTerms.from_abi(registered["royalties"])
        first = first.model_copy(update={"royalty_hash": royalties.hash()})
        status = self.status(model_id)
        # The root of a rejected model may be another's by now; an approved one keeps its own.
        if status.review != Review.REJECTED and not self._is_kept(model_id, first):
            raise IntegrityError(
                f"the events of model {model_id} do not hash to its record: use another RPC endpoint"
            )
        waiting = self._call("ModelNFT", "versionUnderReview", model_id) if added else bytes(32)
        approved: dict[bytes, tuple[ModelRecord, Event]] = {first.weights_root: (first, registered)}
        for event in added:
            record = ModelRecord.from_abi(event["record"])
            if record.weights_root != waiting and self._is_kept(model_id, record):
                approved.pop(record.weights_root, None)  # rejected first, then added again
                approved[record.weights_root] = (record, event)
        versions = tuple(record for record, _ in approved.values())
        submitted = approved[versions[-1].weights_root][1]
        commit, since = self._call("ModelNFT", "traceKeyOf", model_id)
        return Model(
            model_id=model_id,
            owner=status.owner,
            versions=versions,
            trace_key_commit=commit if since else first.trace_key_commit,
            royalties=royalties,
            status=status,
            metadata_cid=cid_v0_from_digest(self._call("ModelNFT", "metadataDigest", model_id)),
            record_cid=cid_v0_from_digest(submitted["metadataDigest"]),
            registered_block=registered.block_number,
            registered_tx=registered.tx_hash,
        )

    def versions_at(self, license_id: int) -> tuple[ModelVersion, ...]:
        """Versions that a license can be of: those approved when its order was opened, the one in force first.

        An order does not name its version: one that was prepared before a new version was approved may be opened after.
        Raises NotFound, IntegrityError.
        """
        opened = self._events("LicenseEscrow", "OrderOpened", {"licenseId": license_id})
        if not opened:
            raise NotFound(f"no order was opened for license {license_id}")
        before = (opened[-1].block_number, opened[-1].log_index)
        model_id = model_of_license(license_id)
        royalty_hash = self.get(model_id).record.royalty_hash
        submitted: dict[bytes, Event] = {}
        approved: dict[bytes, Event] = {}
        for event in self._submissions(model_id):
            if (event.block_number, event.log_index) > before:
                break
            root = bytes(event["weightsRoot"])
            if event.name != "ModelReviewed":
                submitted[root] = event
            elif event["review"] == Review.APPROVED:
                approved[root] = submitted[root]
        records = [
            (ModelRecord.from_abi(event["record"]).model_copy(update={"royalty_hash": royalty_hash}), event)
            for event in reversed(approved.values())
        ]
        if not records or not all(self._is_kept(model_id, record) for record, _ in records):
            raise IntegrityError(
                f"the events of model {model_id} do not hash to its records: use another RPC endpoint"
            )
        return tuple(
            ModelVersion(record=record, metadata_cid=cid_v0_from_digest(event["metadataDigest"]))
            for record, event in records
        )

    def _submissions(self, model_id: int | None = None) -> Sequence[Event]:
        """What was submitted and how it was reviewed, in order, of one model or all."""
        filters = {"modelId": model_id} if model_id is not None else None
        names = ("ModelRegistered", "VersionAdded", "ModelReviewed")
        found = [event for name in names for event in self._events("ModelNFT", name, filters)]
        return sorted(found, key=lambda e: (e.block_number, e.log_index))

    def _is_kept(self, model_id: int, record: ModelRecord) -> bool:
        root = record.weights_root
        kept = bytes(self._call("ModelNFT", "recordHashOf", root))
        return kept == record.hash()[:24] and int(self._call("ModelNFT", "modelOfRoot", root)) == model_id

    def status(self, model_id: int) -> ModelStatus:
        """Owner, review, preferences, freeze. Raises TxReverted NoSuchModel."""
        return ModelStatus.from_abi(self._call("ModelNFT", "statusOf", model_id))

    def of_root(self, weights_root: bytes) -> int:
        """The model registered with these weights. Raises NotFound."""
        found = int(self._call("ModelNFT", "modelOfRoot", to_bytes(weights_root, 32)))
        if not found:
            raise NotFound(f"no model has the weights root 0x{weights_root.hex()}")
        return found

    def queue(self) -> tuple[ReviewItem, ...]:
        """What waits for a registrar, longest first: new models and new versions."""
        pairs = self._reviewed()
        return tuple(self._review_item(submitted, None) for submitted, outcome in pairs if outcome is None)

    def reviews(self, model_id: int | None = None) -> tuple[ReviewItem, ...]:
        """Everything that was submitted, with what came of it, oldest first, of one model or all."""
        return tuple(self._review_item(*pair) for pair in self._reviewed(model_id))

    def _reviewed(self, model_id: int | None = None) -> Sequence[tuple[Event, Event | None]]:
        """Submissions, each with its review: of a model one waits at a time."""
        found: dict[int, tuple[Event, Event | None]] = {}
        waiting: dict[int, int] = {}
        for at, event in enumerate(self._submissions(model_id)):
            if event.name != "ModelReviewed":
                waiting[event["modelId"]] = at
                found[at] = (event, None)
            else:
                submitted = waiting.pop(event["modelId"])
                found[submitted] = (found[submitted][0], event)
        return tuple(found.values())

    def _review_item(self, submitted: Event, reviewed: Event | None) -> ReviewItem:
        item = ReviewItem(
            model_id=submitted["modelId"],
            owner=self.status(submitted["modelId"]).owner,
            weights_root=submitted["weightsRoot"],
            metadata_cid=cid_v0_from_digest(submitted["metadataDigest"]),
            is_version=submitted.name == "VersionAdded",
            submitted=self._time_of(submitted),
            submitted_tx=submitted.tx_hash,
        )
        if reviewed is None:
            return item
        return item.model_copy(
            update={
                "outcome": Review(reviewed["review"]),
                "registrar": reviewed["registrar"],
                "reason_hash": bytes(reviewed["reasonHash"]),
                "reviewed": self._time_of(reviewed),
                "reviewed_tx": reviewed.tx_hash,
            }
        )

    def trace_keys(self, model_id: int) -> tuple[TraceKey, ...]:
        """Every trace key commitment with the time for which it counts, oldest first. Raises NotFound."""
        found = self._events("ModelNFT", "ModelRegistered", {"modelId": model_id})
        if not found:
            raise NotFound(f"model {model_id} is not registered on chain {self._deployment.chain_id}")
        starts = [(found[0]["record"]["traceKeyCommit"], self._time_of(found[0]))]
        rotated = self._events("ModelNFT", "TraceKeyRotated", {"modelId": model_id})
        starts += [(event["traceKeyCommit"], event["at"]) for event in rotated]
        ends = [since for _, since in starts[1:]] + [0]
        return tuple(
            TraceKey(commit=commit, since=since, until=until)
            for (commit, since), until in zip(starts, ends, strict=True)
        )

    def preference_history(self, model_id: int) -> tuple[PreferenceChange, ...]:
        """What the owners stated over time, oldest first."""
        names = ("ModelRegistered", "PreferencesChanged")
        stated = [e for name in names for e in self._events("ModelNFT", name, {"modelId": model_id})]
        return tuple(
            PreferenceChange(
                preferences=Preferences.unpack(event["preferences"]),
                metadata_cid=cid_v0_from_digest(event["metadataDigest"]),
                time=self._time_of(event),
                tx_hash=event.tx_hash,
            )
            for event in stated
        )

    def _time_of(self, event: Event) -> int:
        return self._chain.block(event.block_number).timestamp

    def platform_bps(self) -> int:
        """The platform's share of the gross, in 1/10000."""
        return int(self._call("ModelNFT", "platformBps"))

    def contract_uri(self) -> str:
        """Display metadata of the collection of models (ERC-7572)."""
        return str(self._call("ModelNFT", "contractURI"))

    def set_contract_uri(self, uri: str, *, dry_run: bool = False) -> TxResult:
        """Steward, once scheduled (`access.schedule`): changes the collection's display metadata."""
        return self._send("ModelNFT", "setContractURI", uri, dry_run=dry_run)

    def review(
        self,
        model_id: int,
        outcome: Review,
        reason: str = "",
        *,
        weights_root: bytes | None = None,
        dry_run: bool = False,
    ) -> TxResult:
        """Registrar: approves or rejects, once a version; the chain keeps keccak256 of the reason's text.

        `weights_root` is what was examined; by default what waits for review now.
        """
        if outcome == Review.PENDING:
            raise BadInput("review as APPROVED or REJECTED")
        root = to_bytes(weights_root, 32) if weights_root else self.under_review(model_id)
        reason_digest = reason_hash(reason)
        return self._send("ModelNFT", "review", model_id, root, int(outcome), reason_digest, dry_run=dry_run)

    def under_review(self, model_id: int) -> bytes:
        """Weights root of the version added last while it waits for review, else of the first. Raises NotFound."""
        version = bytes(self._call("ModelNFT", "versionUnderReview", model_id))
        return version if any(version) else self.get(model_id).versions[0].weights_root

    def add_version(
        self, model_id: int, record: ModelRecord, metadata_cid: str, *, dry_run: bool = False
    ) -> TxResult:
        """Owner of an approved model: new weights under the same token; no order opens until they are reviewed.

        `record.royalty_hash` is left zero. Another trace key commitment than the present one rotates the key.
        """
        if any(record.royalty_hash):
            raise BadInput("leave record.royalty_hash zero: it is the model's in every version")
        opening, digest = self.get(model_id).record.as_tuple(), digest_from_cid(metadata_cid)
        return self._send(
            "ModelNFT", "addVersion", model_id, opening, record.as_tuple(), digest, dry_run=dry_run
        )

    def set_preferences(
        self, model_id: int, preferences: Preferences, metadata_cid: str, *, dry_run: bool = False
    ) -> TxResult:
        """Owner: new preference bits with the metadata that says the same."""
        digest = digest_from_cid(metadata_cid)
        return self._send("ModelNFT", "setPreferences", model_id, preferences.pack(), digest, dry_run=dry_run)

    def rotate_trace_key(self, model_id: int, trace_key_commit: bytes, *, dry_run: bool = False) -> TxResult:
        """Owner: commits a new trace key. Older copies stay traceable with the older kit."""
        commit = to_bytes(trace_key_commit, 32)
        return self._send("ModelNFT", "rotateTraceKey", model_id, commit, dry_run=dry_run)

    def transfer(self, model_id: int, to: str, *, dry_run: bool = False) -> TxResult:
        """Owner: gives the model token away. Income not pulled goes with it, signed orders become void."""
        account = self._chain.account
        return self._send("ModelNFT", "transferFrom", account, to_address(to), model_id, dry_run=dry_run)

    def parent_by_license(self, license_id: int, bps: int) -> ParentProof:
        """For `register`: the license's model as a parent. The registrant holds the license, which allows derivatives.

        `bps` of the child's gross go to the parent's lineage, at least the license's `derivative_bps`.
        """
        return self._parent(model_of_license(license_id), bps, license_id=license_id)

    def parent_by_consent(self, signed: SignedConsent) -> ParentProof:
        """For `register`: a parent whose owner consented."""
        consent, signature = signed.consent, signed.signature
        return self._parent(consent.parent_id, consent.bps, deadline=consent.deadline, signature=signature)

    def _parent(
        self, model_id: int, bps: int, *, license_id: int = 0, deadline: int = 0, signature: bytes = b""
    ) -> ParentProof:
        parent = self.get(model_id)
        return ParentProof(
            parent_id=model_id,
            bps=bps,
            license_id=license_id,
            deadline=deadline,
            signature=signature,
            parent_terms=parent.royalties,
            parent_record=parent.record,
        )

    def sign_consent(self, consent: ParentConsent) -> SignedConsent:
        """Owner of a parent model: lets `consent.registrant` record it as a parent."""
        signature = sign(self._chain.signer, self.consent_data(consent))
        return SignedConsent(consent=consent, signature=signature)

    def consent_data(self, consent: ParentConsent) -> eip712.TypedData:
        """What the parent's owner signs."""
        return eip712.parent_consent(
            consent, self._deployment.chain_id, self._deployment.contracts["ModelNFT"]
        )
